package wss

import "errors"

var (
	// ErrHead is returned when what stands at the head of a connection is no request or answer of HTTP, or too long.
	ErrHead = errors.New("wss: not HTTP")
	// ErrNotForUs is returned when a request is HTTP, but no WebSocket at our path; it has been answered.
	ErrNotForUs = errors.New("wss: no such page")
	// ErrRefused is returned when a server or proxy answers with another status than is needed.
	ErrRefused = errors.New("wss: refused")
	// ErrFrame is returned when a WebSocket frame breaks RFC 6455, or is of a kind that carries no frames of ours.
	ErrFrame = errors.New("wss: bad frame")
	// ErrConfig is returned when an address or a proxy cannot be used.
	ErrConfig = errors.New("wss: bad setting")
)
