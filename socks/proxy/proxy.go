// Package proxy holds the two apps of socks: Client, which local programs speak SOCKS or HTTP to, and Exit, which opens
// their connections at the other end of the mesh.
//
// Neither copies the bytes of a proxied connection: the program's socket and the target's are handed to the node, which
// moves them. What is framed here, or leaves this box itself, passes through the Client: single HTTP
// requests, UDP, and connections that a rule sends out of this box. Neither resolves a name on the client's
// box, but for these last.
//
// Rules: a connection's target crosses the mesh in the header that opens its stream (Header), the exit's answer in the
// refusal (Verdict), so a program waits one round trip. Whoever hands a socket over gives it away, on errors too; a second
// holder would keep resets and ends of stream from the far side. Names are resolved at the exit only, and the exit's Policy is asked about the
// very address that is about to be connected to, never about the name. The lock of a type guards maps and numbers and is
// never held across I/O.
package proxy

import (
	"context"
	"net"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// Service is the name under which exits are found and dialled, and the type they are listed as.
const Service = "socks"

// Traffic counts the bytes of one connection, seen from the box that counts.
type Traffic struct{ Sent, Received uint64 }

// Node is what a Client needs of the node beside it. ForClient makes one of an app.Client; tests bring their own.
type Node interface {
	// Resolve turns a key, petname or mesh name into a key.
	Resolve(ctx context.Context, name string) (key.Public, error)
	// Exits lists the nodes that offer Service, as far as this node knows.
	Exits(ctx context.Context) ([]key.Public, error)
	// Ping measures the round trip to a node.
	Ping(ctx context.Context, k key.Public) (time.Duration, error)
	// DialHandOver opens a stream to a service at the node to. Once the service has agreed it calls prepare, which answers the
	// program and returns the socket; from then on the socket belongs to the node. It returns when the stream has ended.
	// A refusal by the exit app is a *Verdict; every other error before prepare was called means that the exit was not
	// reached.
	DialHandOver(ctx context.Context, to key.Public, service string, header []byte, prepare func(reply []byte) (app.Socket, error)) (Traffic, error)
	// Dial opens a stream whose bytes pass through this program. Errors are those of DialHandOver.
	Dial(ctx context.Context, to key.Public, service string, header []byte) (Stream, error)
	// DialPackets opens a flow of packets: each Write is one, each Read returns one. Write does not block, it drops.
	DialPackets(ctx context.Context, to key.Public, service string, header []byte) (net.Conn, error)
	// Load asks an exit how busy it is. A *Verdict is its refusal of this client; other errors mean that it does not say.
	Load(ctx context.Context, to key.Public) (Load, error)
	// Status publishes the app's state; the value is encoded before Status returns.
	Status(v any)
}

// Stream is a connection whose directions end one by one: a TCP connection, or a stream of the mesh.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// ExitNode is what an Exit needs of the node beside it. ForExit makes one of an app.Client.
type ExitNode interface {
	// Accept waits for the next stream to Service.
	Accept(ctx context.Context) (Incoming, error)
	// AcceptPackets waits for the next packet flow to ServiceUDP. errors.ErrUnsupported means that there will be none.
	AcceptPackets(ctx context.Context) (IncomingPackets, error)
	// Status publishes the app's state; the value is encoded before Status returns.
	Status(v any)
}

// Incoming is a stream that waits for its verdict. Exactly one of HandOver and Refuse is called on it.
type Incoming interface {
	// Peer is the key of the node that dials, proven by the session.
	Peer() key.Public
	// Header is what the stream was opened with.
	Header() []byte
	// HandOver agrees and gives the socket to the node, which keeps the client to l. It returns when the stream has ended, or
	// at the end of ctx, which does not end the stream.
	HandOver(ctx context.Context, conn *net.TCPConn, l Limits) (Traffic, error)
	// Refuse ends the stream with a verdict.
	Refuse(v *Verdict) error
}

// IncomingPackets is a packet flow that waits for its verdict. Exactly one of Accept and Refuse is called on it.
type IncomingPackets interface {
	Peer() key.Public
	Header() []byte
	// Accept agrees. A Read or Write of the connection is one packet; Write never blocks, it drops.
	Accept() (net.Conn, error)
	Refuse(v *Verdict) error
}
