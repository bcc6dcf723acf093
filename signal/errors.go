package signal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrLineTooLong is returned when a peer sends a line above MaxLine, or a value to send would make one.
var ErrLineTooLong = errors.New("signal: line longer than 1 MiB")

// ErrClosed is returned by calls on a connection that has ended or ends before the answer.
var ErrClosed = errors.New("signal: connection closed")

// ErrInUse is returned by Listen when another process answers at the path.
var ErrInUse = errors.New("another process listens there")

// ErrPlace is returned for a socket in a directory that somebody else has made where anybody may make one.
var ErrPlace = errors.New("the directory belongs to somebody else: choose another with --run")

// ErrNotJSON is returned by Run when a peer speaks something else than JSON objects (a browser, for example).
var ErrNotJSON = errors.New("signal: peer does not speak JSON-RPC")

// Error is what a method answers when it fails. Name is stable and for programs, Message for people, Code for
// other JSON-RPC libraries. Two Errors are the same to errors.Is when their names are.
type Error struct {
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message"`
}

// The names of errors; test with errors.Is(err, signal.ErrNotFound).
var (
	ErrParse         = &Error{-32700, "parse", "the line is no JSON"}
	ErrInvalid       = &Error{-32600, "invalid", "the line is no JSON-RPC 2.0 request"}
	ErrUnknownMethod = &Error{-32601, "unknown_method", "no such method"}
	ErrUsage         = &Error{-32602, "usage", "wrong parameters"}
	ErrInternal      = &Error{-32603, "internal", "internal error"}
	ErrNotFound      = &Error{-32001, "not_found", "no such thing"}
	ErrRefused       = &Error{-32002, "refused", "refused"}
	ErrUnreachable   = &Error{-32003, "unreachable", "not reachable"}
	ErrTimeout       = &Error{-32004, "timeout", "timed out"}
	ErrBusy          = &Error{-32005, "busy", "too many requests at once"}
	ErrUnsupported   = &Error{-32006, "unsupported", "not supported here"}
	ErrNotRunning    = &Error{-32007, "not_running", "not running"}
)

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Message
}

// Is reports whether target is an Error of the same name.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Name == e.Name
}

// Errorf returns an Error of the kind of base with its own message.
func Errorf(base *Error, format string, args ...any) *Error {
	return &Error{Code: base.Code, Name: base.Name, Message: fmt.Sprintf(format, args...)}
}

// AsError turns any error into what goes over the wire: an Error in its chain keeps its name, an expired context
// becomes ErrTimeout, everything else ErrInternal; the message is always the whole text of err.
func AsError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return &Error{Code: e.Code, Name: e.Name, Message: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(ErrTimeout, "%v", err)
	case errors.Is(err, errors.ErrUnsupported):
		return Errorf(ErrUnsupported, "%v", err)
	default:
		return Errorf(ErrInternal, "%v", err)
	}
}

// Printable replaces what a terminal would obey (escapes, line ends, turns of direction) in a text that somebody else
// wrote, keeping the characters of keep.
func Printable(text, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar || strings.ContainsRune(keep, r) {
			return r
		}
		return '?'
	}, text)
}

// ExitCode is the exit status that CLI.md gives this kind of error, for programs that end with it.
func (e *Error) ExitCode() int {
	switch e.Name {
	case ErrUsage.Name:
		return 2
	case ErrNotRunning.Name, ErrUnreachable.Name:
		return 3
	case ErrNotFound.Name:
		return 4
	case ErrRefused.Name:
		return 5
	}
	return 1
}
