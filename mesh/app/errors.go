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
)
