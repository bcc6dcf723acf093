package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// The parts of the test mesh that a client uses besides handing sockets over: streams and packets through the app.

// Dial joins the exit's socket with one end of a socket pair.
func (n *meshNode) Dial(ctx context.Context, to key.Public, service string, header []byte) (Stream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	var near net.Conn
	granted, failed := make(chan struct{}), make(chan error, 1)
	n.m.wg.Add(1)
	go func() {
		defer n.m.wg.Done()
		_, err := n.DialHandOver(ctx, to, service, header, func([]byte) (app.Socket, error) {
			var err error
			if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
				return nil, err
			}
			far, err := ln.Accept()
			if err != nil {
				return nil, err
			}
			close(granted)
			return far.(*net.TCPConn), nil
		})
		failed <- err
	}()
	select {
	case <-granted:
		return near.(*net.TCPConn), nil
	case err := <-failed:
		if err == nil {
			err = errors.New("ended at once")
		}
		return nil, err
	}
}

func (n *meshNode) Load(_ context.Context, to key.Public) (Load, error) {
	e := n.m.find(to)
	if e == nil {
		return Load{}, errors.New("no path to the node")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.load == nil {
		return Load{}, errors.ErrUnsupported
	}
	return *e.load, nil
}

// meshFlow is a flow of packets that waits for its verdict.
type meshFlow struct {
	peer    key.Public
	header  []byte
	verdict chan error
	far     net.Conn
}

func (n *meshNode) DialPackets(ctx context.Context, to key.Public, _ string, header []byte) (net.Conn, error) {
	e := n.m.find(to)
	if e == nil {
		return nil, errors.New("no path to the node")
	}
	near, far := packetPair()
	f := &meshFlow{peer: n.key, header: header, verdict: make(chan error, 1), far: far}
	select {
	case e.flows <- f:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-f.verdict:
		return near, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *meshFlow) Peer() key.Public          { return f.peer }
func (f *meshFlow) Header() []byte            { return f.header }
func (f *meshFlow) Accept() (net.Conn, error) { f.verdict <- nil; return f.far, nil }
func (f *meshFlow) Refuse(v *Verdict) error   { f.verdict <- v; return nil }

// packetEnd is one end of a pair that keeps packets whole and drops what finds no room.
type packetEnd struct {
	net.Conn // nil: what is not below is not called
	in, out  chan []byte
	ended    chan struct{}
	once     *sync.Once

	mu       sync.Mutex // guards the field below
	deadline time.Time
}

func packetPair() (a, b net.Conn) {
	x, y, ended, once := make(chan []byte, 256), make(chan []byte, 256), make(chan struct{}), new(sync.Once)
	return &packetEnd{in: x, out: y, ended: ended, once: once}, &packetEnd{in: y, out: x, ended: ended, once: once}
}

func (p *packetEnd) Read(b []byte) (int, error) {
	p.mu.Lock()
	late := time.NewTimer(time.Until(p.deadline))
	if p.deadline.IsZero() {
		late.Stop()
	}
	p.mu.Unlock()
	defer late.Stop()
	select {
	case m := <-p.in:
		return copy(b, m), nil
	case <-p.ended:
		return 0, io.EOF
	case <-late.C:
		return 0, os.ErrDeadlineExceeded
	}
}

func (p *packetEnd) Write(b []byte) (int, error) {
	select {
	case p.out <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}

func (p *packetEnd) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	return nil
}

func (p *packetEnd) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}
