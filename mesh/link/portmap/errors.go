package portmap

import "errors"

var (
	// ErrMalformed is returned when bytes from a gateway are no answer to a MAP request.
	ErrMalformed = errors.New("malformed answer")
	// ErrRefused is returned when the gateway speaks the protocol and declines; it wraps the gateway's reason.
	ErrRefused = errors.New("the gateway refuses")
	// ErrVersion is returned when the gateway answers PCP with another version: it may speak NAT-PMP.
	ErrVersion = errors.New("the gateway does not speak PCP")
	// ErrNoAnswer is returned when the gateway is silent.
	ErrNoAnswer = errors.New("no answer from the gateway")
	// ErrInside is returned when the gateway's outside address is itself a private one: nobody outside could use the mapping.
	ErrInside = errors.New("the gateway is itself behind a NAT")
)
