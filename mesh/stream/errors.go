package stream

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by an Endpoint whose Run has ended or not begun, and by a Stream after Close.
	ErrClosed = errors.New("closed")
	// ErrUnreachable is returned when no session with the peer comes up.
	ErrUnreachable = errors.New("unreachable")
	// ErrIdentity is returned when the key of the other side's certificate is not the key of its session.
	ErrIdentity = errors.New("certificate is not the session's peer")
	// ErrHeader is returned when a service name, header or reply is too long.
	ErrHeader = errors.New("service name, header or reply too long")
	// ErrFrame is returned for a first frame or answer that does not parse.
	ErrFrame = errors.New("malformed frame")
	// ErrNoPackets is returned when the peer is of a version that knows no flows of packets.
	ErrNoPackets = errors.New("the node there carries no packets: its version is too old")
	// ErrKind is returned by Incoming.Accept for a flow of packets, and by AcceptFlow for a stream.
	ErrKind = errors.New("a stream where packets are meant, or the other way round")
	// ErrPacket is returned by Flow.Send for a packet longer than MaxFlowPacket.
	ErrPacket = errors.New("packet too long")
	// ErrLost is returned by Read and Write when the connection under a stream has ended.
	ErrLost = errors.New("connection lost")
	// ErrRegistered is returned by Handle for a service that has a handler.
	ErrRegistered = errors.New("service is registered already")
)

// ResetError is returned by Read and Write of a stream that was reset, with the code of whoever did.
type ResetError struct {
	Code   uint64
	Remote bool
}

func (e *ResetError) Error() string {
	side := "here"
	if e.Remote {
		side = "by the other side"
	}
	return fmt.Sprintf("stream reset %s, code %d", side, e.Code)
}
