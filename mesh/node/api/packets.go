package api

import (
	"context"
	"net"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// carried is what a program's connection is joined with: a *stream.Stream, or a *stream.Flow if packets are wanted.
type carried interface {
	Peer() key.Public
	Service() string
	Reply() []byte
	Reset(code uint64)
	CountIn(t *stream.Tally)
}

func isFlow(st carried) bool {
	_, ok := st.(*stream.Flow)
	return ok
}

// open dials what a program asks for.
func (s *Server) open(ctx context.Context, k key.Public, p app.RequestParams) (carried, error) {
	if p.Packets { // not in one return: an interface that holds a nil pointer is not nil
		f, err := s.streams.DialFlow(ctx, k, p.Service, p.Header)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	st, err := s.streams.Dial(ctx, k, p.Service, p.Header)
	if err != nil {
		return nil, err
	}
	return st, nil
}

// accept takes what a peer has opened.
func accept(in *stream.Incoming, reply []byte) (carried, error) {
	if in.Packets() {
		f, err := in.AcceptFlow(reply)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	st, err := in.Accept(reply)
	if err != nil {
		return nil, err
	}
	return st, nil
}

// join moves the bytes, or the packets, until the end. A program's own connection is one of bytes, so packets go framed
// there; a socket that was handed over for a flow has packets itself.
func join(ctx context.Context, st carried, conn net.Conn, own bool) (sent, received uint64, err error) {
	if f, ok := st.(*stream.Flow); ok {
		return stream.PumpFlow(ctx, f, conn, own)
	}
	return stream.Pump(ctx, st.(*stream.Stream), conn)
}
