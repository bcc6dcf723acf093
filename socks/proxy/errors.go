package proxy

import (
	"errors"

	"skywire/socks"
)

var (
	// ErrHeader is returned when the header that opens a stream is not one of this version's.
	ErrHeader = errors.New("malformed stream header")
	// ErrPolicy is returned when an exit's policy forbids an address.
	ErrPolicy = errors.New("refused by the exit's policy")
	// ErrRule is returned when a line of an exit's policy is not understood.
	ErrRule = errors.New("policy rule")
	// ErrNoExit is returned when no exit is known or none of those known could be reached; its wrapper names them.
	ErrNoExit = errors.New("no exit")
	// ErrExposed is returned when a Client would serve more than this box without asking for a password.
	ErrExposed = errors.New("everybody who reaches that address could use your exit")
	// ErrInUse is returned when the port to listen on is taken.
	ErrInUse = errors.New("port in use")
	// ErrBusy is returned when a limit on connections is reached.
	ErrBusy = errors.New("too many connections")
	// ErrManyAssociations is returned when a limit on UDP associations is reached.
	ErrManyAssociations = errors.New("too many UDP associations")
)

// Verdicts that are the exit's own and not the target's: another exit may do better. They are no codes of RFC 1928, so
// they never reach a program as they are.
const (
	verdictBusy     socks.Code = 0x80
	verdictStranger socks.Code = 0x81
	verdictLoad     socks.Code = 0x82 // no refusal: the answer to a probe, see load.go
)

// Verdict is why an exit refused a connection.
type Verdict struct {
	Code socks.Code
	Text string // for people; at most maxText bytes travel
}

// maxText bounds a verdict's text on the wire: it may end up in the body of an HTTP reply.
const maxText = 512

func (v *Verdict) Error() string {
	if v.Text != "" {
		return v.Text
	}
	return v.code().String()
}

// code is what the program is told.
func (v *Verdict) code() socks.Code {
	switch {
	case v.Code == verdictStranger:
		return socks.NotAllowed
	case v.Code > socks.AddressNotSupported, v.Code == socks.Granted:
		return socks.Failed
	}
	return v.Code
}

// elsewhere reports whether the refusal is the exit's own, so that another exit should be tried.
func (v *Verdict) elsewhere() bool { return v.Code == verdictBusy || v.Code == verdictStranger }
