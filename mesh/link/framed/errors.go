package framed

import "errors"

var (
	// ErrFrame is returned when a length is 0 or above MaxFrame: what comes is no stream of frames.
	ErrFrame = errors.New("framed: not a frame")
	// ErrFull is returned when no slot is free.
	ErrFull = errors.New("framed: too many connections")
	// ErrGone is returned when an endpoint names no connection that is or could be made.
	ErrGone = errors.New("framed: no such connection")
)
