package app

import "errors"

var (
	// ErrNotRunning is returned when no node answers at the socket.
	ErrNotRunning = errors.New("the node is not running")
	// ErrClosed is returned by calls on a Client after Close.
	ErrClosed = errors.New("client closed")
	// ErrHeader is returned when a header or reply is longer than MaxHeader.
	ErrHeader = errors.New("header or reply longer than 4 KiB")
	// ErrReset is returned by Read of a stream that was cut, by the other side or with the node.
	ErrReset = errors.New("stream reset")
	// ErrAnswered is returned by the second verdict on one Incoming.
	ErrAnswered = errors.New("the stream is answered already")
	// ErrKind is returned when a flow of packets is taken as a stream, or the other way round.
	ErrKind = errors.New("a stream where packets are meant, or the other way round")
	// ErrPacket is returned by PacketConn.Write for a packet longer than MaxPacket.
	ErrPacket = errors.New("packet too long")
)
