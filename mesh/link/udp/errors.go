package udp

import "errors"

var (
	// ErrTruncated is returned by Receive when the buffer was too small for a datagram or train, which is lost.
	ErrTruncated = errors.New("udp: train cut short")
	// ErrAddress is returned when an address can't be reached from this kind of socket.
	ErrAddress = errors.New("udp: address does not fit the socket")
)
