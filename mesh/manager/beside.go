//go:build issuer || !(mips || mipsle)

package manager

import (
	"context"
	"errors"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// MembersOf makes Members of the client of the node beside us.
func MembersOf(c *app.Client) Members { return appMembers{c} }

type appMembers struct{ *app.Client }

func (n appMembers) Accept(ctx context.Context) (*Asked, error) {
	in, err := n.Client.Accept(ctx, member.Service)
	if err != nil {
		return nil, err
	}
	a := &Asked{Peer: in.Peer, Header: in.Header, Reply: func(b []byte) error {
		conn, err := in.Accept(b)
		if err != nil {
			return err
		}
		return conn.Close()
	}}
	if len(in.Binding) == len(a.Binding) {
		a.Binding = [32]byte(in.Binding)
	} else if err := in.Refuse("unsupported", "no binding of the connection to prove an invite on"); err != nil {
		return nil, err
	} else {
		return nil, errNoBinding
	}
	return a, nil
}

// errNoBinding is returned when the node does not say over which connection a stream came.
var errNoBinding = errors.New("the node gives streams no binding")

func (n appMembers) PutStatements(ctx context.Context, raws [][]byte) error {
	var result struct {
		Refused []string `json:"refused"`
	}
	err := n.Call(ctx, "member.put", struct {
		Statements [][]byte `json:"statements"`
	}{raws}, &result)
	if err == nil && len(result.Refused) > 0 {
		err = errors.New(result.Refused[0])
	}
	return err
}

// maxPages bounds what a node that makes no progress can cost.
const maxPages = 4096

func (n appMembers) Statements(ctx context.Context) (cluster key.Public, raws [][]byte, err error) {
	var ask struct {
		After []byte `json:"after,omitempty"`
	}
	for range maxPages {
		var page struct {
			Cluster    key.Public `json:"cluster"`
			Statements [][]byte   `json:"statements"`
			Next       []byte     `json:"next"`
		}
		err := n.Call(ctx, "member.list", ask, &page)
		if errors.Is(err, signal.ErrUnknownMethod) {
			return cluster, nil, nil
		}
		if err != nil {
			return cluster, nil, err
		}
		cluster = page.Cluster
		raws = append(raws, page.Statements...)
		if len(page.Statements) == 0 || len(page.Next) == 0 {
			break
		}
		ask.After = page.Next
	}
	return cluster, raws, nil
}
