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

// ForClient makes the Node of a Client.
func ForClient(c *app.Client) Node { return clientNode{c} }

type clientNode struct{ c *app.Client }

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
		if s.Name == Service && s.Key != self && s.Key != (key.Public{}) {
			keys = append(keys, s.Key)
		}
	}
	return keys, nil
}

func (n clientNode) Ping(ctx context.Context, k key.Public) (time.Duration, error) {
	return n.c.Ping(ctx, k)
}

func (n clientNode) DialHandOver(ctx context.Context, to key.Public, header []byte, prepare func([]byte) (*net.TCPConn, error)) (Traffic, error) {
	t, err := n.c.DialHandOver(ctx, to, Service, header, prepare)
	if v := verdictFrom(err); v != nil {
		return Traffic(t), v
	}
	return Traffic(t), err
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

func (n exitNode) AcceptPackets(context.Context) (IncomingPackets, error) {
	return nil, errors.ErrUnsupported
}

func (n exitNode) Status(v any) { _ = n.c.Status(v) }

type incoming struct{ in *app.Incoming }

func (i incoming) Peer() key.Public { return i.in.Peer }
func (i incoming) Header() []byte   { return i.in.Header }

func (i incoming) Refuse(v *Verdict) error {
	return i.in.Refuse(verdictName(v), v.Text[:min(len(v.Text), maxText)])
}

// HandOver returns at the end of ctx too. The app's own call waits for the end of the stream, which may be days away; its
// goroutine is left to it then, and ends with the stream or with the node.
func (i incoming) HandOver(ctx context.Context, conn *net.TCPConn, _ Limits) (Traffic, error) {
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
