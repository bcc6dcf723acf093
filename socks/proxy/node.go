package proxy

import (
	"context"
	"errors"
	"net"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/socks"
)

// verdictNames are the codes as they cross the mesh: names of this service's own, so that the exit app's verdict on a
// target is never mistaken for a node's on the stream (signal's "refused", "unreachable" and so on).
func verdictNames() map[socks.Code]string {
	return map[socks.Code]string{
		socks.Failed:             "socks_failed",
		socks.NotAllowed:         "socks_not_allowed",
		socks.NetworkUnreachable: "socks_network_unreachable",
		socks.HostUnreachable:    "socks_host_unreachable",
		socks.Refused:            "socks_refused",
		socks.Expired:            "socks_timeout",
		verdictBusy:              "socks_busy",
		verdictStranger:          "socks_stranger",
		verdictLoad:              "socks_load",
	}
}

// verdictName is what an exit sends.
func verdictName(v *Verdict) string {
	if n, ok := verdictNames()[v.Code]; ok {
		return n
	}
	return "socks_failed"
}

// verdictFrom is what a client makes of a refusal: nil if the exit was not reached.
func verdictFrom(err error) *Verdict {
	var e *signal.Error
	if !errors.As(err, &e) {
		return nil
	}
	for c, n := range verdictNames() {
		if n == e.Name {
			return &Verdict{Code: c, Text: clean(e.Message)}
		}
	}
	switch { // a node may speak for its exit: it knows the allow list, and its own limits
	case errors.Is(err, signal.ErrRefused):
		return &Verdict{Code: verdictStranger, Text: clean(e.Message)}
	case errors.Is(err, signal.ErrBusy):
		return &Verdict{Code: verdictBusy, Text: clean(e.Message)}
	}
	return nil
}

// clean cuts a text from the mesh to what may stand in an answer and in a log: one line of bounded length.
func clean(s string) string {
	b := []byte(s)
	b = b[:min(len(b), maxText)]
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// ForClient makes the Node of a Client. service is that of its exits: Service or, with what a peered cluster exports, its name
// here, NAME@CLUSTER, of whichever gate offers it.
func ForClient(c *app.Client, service string) Node { return clientNode{c, service} }

type clientNode struct {
	c       *app.Client
	service string
}

// name is what a service that a Client dials is called at the node.
func (n clientNode) name(service string) string {
	if service == Service {
		return n.service
	}
	return service
}

func (n clientNode) Resolve(ctx context.Context, name string) (key.Public, error) {
	return n.c.Resolve(ctx, name)
}

func (n clientNode) Exits(ctx context.Context) ([]key.Public, error) {
	all, err := n.c.Services(ctx, Service)
	if err != nil {
		return nil, err
	}
	self := n.c.Self().Key
	var keys []key.Public
	for _, s := range all {
		own := s.Key == self && n.service == Service // a gate on this box leads elsewhere
		if s.Name == n.service && !own && s.Key != (key.Public{}) {
			keys = append(keys, s.Key)
		}
	}
	return keys, nil
}

func (n clientNode) Ping(ctx context.Context, k key.Public) (time.Duration, error) {
	return n.c.Ping(ctx, k)
}

func (n clientNode) DialHandOver(ctx context.Context, to key.Public, service string, header []byte, prepare func([]byte) (app.Socket, error)) (Traffic, error) {
	t, err := n.c.DialHandOverSocket(ctx, to, n.name(service), header, prepare)
	return Traffic(t), orVerdict(err)
}

func (n clientNode) Dial(ctx context.Context, to key.Public, service string, header []byte) (Stream, error) {
	s, err := n.c.Dial(ctx, to, n.name(service), header)
	if err != nil {
		return nil, orVerdict(err)
	}
	return s, nil
}

func (n clientNode) DialPackets(ctx context.Context, to key.Public, service string, header []byte) (net.Conn, error) {
	p, err := n.c.DialPackets(ctx, to, n.name(service), header)
	if err != nil {
		return nil, orVerdict(err)
	}
	return p, nil
}

func (n clientNode) Load(ctx context.Context, to key.Public) (Load, error) {
	if n.service != Service {
		return Load{}, errors.ErrUnsupported // a gate does not tell
	}
	s, err := n.c.Dial(ctx, to, Service, ProbeHeader())
	if err == nil {
		s.Close()
		return Load{}, errors.ErrUnsupported
	}
	v := verdictFrom(err)
	if l, ok := loadOf(v); ok {
		return l, nil
	}
	if v != nil && v.elsewhere() {
		return Load{}, v
	}
	return Load{}, err
}

// orVerdict is the exit's verdict if err is one.
func orVerdict(err error) error {
	if v := verdictFrom(err); v != nil {
		return v
	}
	return err
}

func (n clientNode) Status(v any) { _ = n.c.Status(v) } // shown, not relied on

// ForExit makes the ExitNode of an Exit.
func ForExit(c *app.Client) ExitNode { return exitNode{c} }

type exitNode struct{ c *app.Client }

func (n exitNode) Accept(ctx context.Context) (Incoming, error) {
	in, err := n.c.Accept(ctx, Service)
	if err != nil {
		return nil, err
	}
	return incoming{in}, nil
}

func (n exitNode) AcceptPackets(ctx context.Context) (IncomingPackets, error) {
	for {
		in, err := n.c.Accept(ctx, ServiceUDP)
		if err != nil {
			return nil, err
		}
		if in.Packets {
			return incoming{in}, nil
		}
		if err := in.Refuse(verdictName(&Verdict{Code: socks.Failed}), "this service takes flows of packets"); err != nil {
			return nil, err
		}
	}
}

func (n exitNode) Status(v any) { _ = n.c.Status(v) }

type incoming struct{ in *app.Incoming }

func (i incoming) Peer() key.Public { return i.in.Peer }
func (i incoming) Header() []byte   { return i.in.Header }

func (i incoming) Refuse(v *Verdict) error {
	return i.in.Refuse(verdictName(v), v.Text[:min(len(v.Text), maxText)])
}

// Accept takes a flow of packets.
func (i incoming) Accept() (net.Conn, error) { return i.in.AcceptPackets(nil) }

// HandOver returns at the end of ctx too. The app's own call waits for the end of the stream, which may be days away; its
// goroutine is left to it then, and ends with the stream or with the node.
func (i incoming) HandOver(ctx context.Context, conn *net.TCPConn, l Limits) (Traffic, error) {
	i.in.Limit(app.Limits(l))
	type end struct {
		t   app.Traffic
		err error
	}
	ended := make(chan end, 1)
	go func() {
		t, err := i.in.HandOver(nil, conn)
		ended <- end{t, err}
	}()
	select {
	case e := <-ended:
		return Traffic(e.t), e.err
	case <-ctx.Done():
		return Traffic{}, ctx.Err()
	}
}
