package vpn

import "errors"

var (
	// ErrRefused is returned when the server does not let us in.
	ErrRefused = errors.New("refused")
	// ErrNoServer is returned when no server was named and nobody in the mesh offers a vpn.
	ErrNoServer = errors.New("nobody in the mesh offers a vpn: name one with --server NODE")
	// ErrProtocol is returned for requests and answers that make no sense or are of another version.
	ErrProtocol = errors.New("vpn protocol")
	// ErrPoolFull is returned when the server's pool has no free IPv4 address.
	ErrPoolFull = errors.New("no free address in the pool")
)
