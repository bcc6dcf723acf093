// Package wss makes the WebSocket connections, over TLS or plain, that carry links where only the web passes.
//
// It knows as much of HTTP and of RFC 6455 as two nodes need to look like a browser and a web server, directly, through an
// HTTP CONNECT proxy, or with a reverse proxy in front: net/http would cost a router a megabyte. TLS is camouflage: the
// server's certificate is made at start, and nobody checks it; who the peer is shows the handshake inside. What the frames
// are is not known here: a connection is a stream of bytes.
//
// Rules: heads and frames of strangers are bounded before they are read. Read and Write may be called by one goroutine
// each at the same time.
package wss
