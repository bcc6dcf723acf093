// Package framed carries frames over byte streams: TCP connections, and WebSockets, which look like such.
//
// Each frame has its length as u16 before it. A Set holds the connections of a node; each has a slot, whose number is the
// Socket of a forward.Endpoint, so that the data plane sends to a stream as it does to a UDP socket. It does not dial or
// listen by itself (packages tcp and wss know how), reads no frame and knows no keys: what a stranger may have before
// somebody has proved a key is bounded here, who has is told by Prove.
//
// Rules: Send never blocks and never allocates once a connection has its buffers; what a slow connection does not take is
// dropped and counted, as with UDP. One goroutine reads a connection, one writes it; both end before Run does. The lock of
// a connection is never held while calling out.
package framed
