package socks

import "errors"

var (
	// ErrProtocol is returned when the first bytes, or a later message, are of no protocol spoken here.
	ErrProtocol = errors.New("neither SOCKS nor HTTP")
	// ErrAuth is returned when a program does not offer the way of authenticating that is wanted, or proves nothing.
	ErrAuth = errors.New("not authenticated")
	// ErrCommand is returned when a program wants a command that is not carried.
	ErrCommand = errors.New("command not supported")
	// ErrAddress is returned when the target is no address and no name that could be dialled.
	ErrAddress = errors.New("not a target")
	// ErrFragment is returned when a UDP packet is a fragment: none are put together here.
	ErrFragment = errors.New("fragments are not supported")
	// ErrRule is returned when a rule of the client is not understood.
	ErrRule = errors.New("rule")
	// ErrTooLong is returned when an HTTP request exceeds the limits on lines and headers.
	ErrTooLong = errors.New("request too long")
)
