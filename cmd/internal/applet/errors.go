package applet

import (
	"errors"
	"flag"
	"fmt"

	"skywire/mesh/app"
	"skywire/signal"
)

// Exit statuses of every applet and verb.
const (
	OK         = 0
	Failed     = 1
	BadUsage   = 2
	NotRunning = 3 // not running, or not reachable
	NotFound   = 4 // no such app, node or id
	Refused    = 5 // by policy or scope
)

// ErrUsage is returned when the arguments make no sense; the status is 2.
var ErrUsage = errors.New("usage")

// Usagef makes an error that Code answers with 2.
func Usagef(format string, args ...any) error {
	return WithCode(BadUsage, fmt.Errorf(format, args...))
}

// WithCode marks err with the exit status that it should end the applet with. A nil err stays nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codeError{code, err}
}

type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }
func (e *codeError) ExitCode() int { return e.code }
func (e *codeError) Is(t error) bool {
	return t == ErrUsage && e.code == BadUsage
}

// Code gives the exit status for err: 0 for nil and for a request for help, what the error itself says by a method
// ExitCode() int or, for answers of a daemon, by its stable name; 1 otherwise.
func Code(err error) int {
	var c interface{ ExitCode() int }
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return OK
	case errors.As(err, &c):
		return c.ExitCode()
	case errors.Is(err, app.ErrNotRunning), errors.Is(err, signal.ErrNotRunning), errors.Is(err, signal.ErrUnreachable),
		errors.Is(err, signal.ErrTimeout):
		return NotRunning
	case errors.Is(err, signal.ErrNotFound):
		return NotFound
	case errors.Is(err, signal.ErrRefused):
		return Refused
	case errors.Is(err, signal.ErrUsage):
		return BadUsage
	}
	return Failed
}
