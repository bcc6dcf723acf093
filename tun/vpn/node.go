package vpn

import (
	"context"
	"io"
	"net/netip"
	"os"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// Node is what the vpn asks of its node; NewNode makes one of a mesh/app client.
type Node interface {
	Run(ctx context.Context) error
	Self() app.Info
	Changed() <-chan struct{} // closes when the node came back
	Register(ctx context.Context, r app.Registration) error
	Dial(ctx context.Context, to key.Public, service string, header []byte) (s io.ReadCloser, reply []byte, err error)
	Accept(ctx context.Context, service string) (Incoming, error)
	Resolve(ctx context.Context, name string) (key.Public, error)
	Lookup(ctx context.Context, name string) (app.Names, error)
	LookupAddr(ctx context.Context, a netip.Addr) (app.Names, error)
	Whois(ctx context.Context, name string) (app.Identity, error)
	Services(ctx context.Context, kind string) ([]app.Service, error)
	Ping(ctx context.Context, to key.Public) (time.Duration, error)
	MembersChanged(ctx context.Context, after uint64) (next uint64, changed bool, err error)
	AttachTUN(ctx context.Context, queues []*os.File, device string, mtu int) error
	DetachTUN(ctx context.Context, device string) error
	SetPolicy(ctx context.Context, p app.Policy) error
	Sockets(ctx context.Context) ([]*os.File, error)
	Status(v any) error
	OnCall(h app.CallHandler)
}

// Incoming is a client that waits for a verdict: Accept or Refuse, once.
type Incoming struct {
	Peer   key.Public
	Header []byte
	Accept func(reply []byte) (io.ReadCloser, error)
	Refuse func(name, text string) error
}

// NewNode adapts a client of the node.
func NewNode(c *app.Client) Node { return &clientNode{c} }

type clientNode struct{ *app.Client }

func (n *clientNode) Dial(ctx context.Context, to key.Public, service string, header []byte) (io.ReadCloser, []byte, error) {
	s, err := n.Client.Dial(ctx, to, service, header)
	if err != nil {
		return nil, nil, err
	}
	return s, s.Reply(), nil
}

func (n *clientNode) Accept(ctx context.Context, service string) (Incoming, error) {
	in, err := n.Client.Accept(ctx, service)
	if err != nil {
		return Incoming{}, err
	}
	return Incoming{
		Peer: in.Peer, Header: in.Header, Refuse: in.Refuse,
		Accept: func(reply []byte) (io.ReadCloser, error) {
			c, err := in.Accept(reply)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}, nil
}
