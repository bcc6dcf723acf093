package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"skywire/mesh/key"
	"skywire/socks"
)

// Names finds the services that nodes have published: SERVICE.NAME.mesh, and NAME.mesh or a mesh address with the port
// under which one is known. Not ok: the host is none of these. An error: it is, and there is no such service.
type Names interface {
	Lookup(ctx context.Context, host string, port uint16, udp bool) (k key.Public, service string, ok bool, err error)
}

// way is how a connection gets to its target.
type way struct {
	action  socks.Action
	exits   *exits // with Through
	key     key.Public
	service string // not empty: a published one, of key's node
}

// wayTo asks the rules and the mesh's names. Blocking comes first, then what the mesh itself has, then the other rules.
func (c *Client) wayTo(ctx context.Context, q socks.Query) (way, error) {
	_, r := c.c.Rules.Find(q)
	if r != nil && r.Action == socks.Block {
		c.stats.blocked.Add(1)
		return way{}, &Verdict{socks.NotAllowed, fmt.Sprintf("%s: blocked by the rule %q of this proxy", q.Host, clean(r.Text))}
	}
	if c.c.Names != nil {
		k, service, ok, err := c.c.Names.Lookup(ctx, q.Host, q.Port, q.UDP)
		if err != nil {
			return way{}, &Verdict{socks.HostUnreachable, clean(err.Error())}
		}
		if ok {
			return way{key: k, service: service}, nil
		}
	}
	w := way{exits: c.exits}
	if r != nil {
		w.action = r.Action
		if p := c.pools[strings.Join(r.Exits, ",")]; p != nil {
			w.exits = p
		}
	}
	return w, nil
}

// query is what the rules are asked about a request.
func query(r *socks.Request, conn Stream) socks.Query {
	return socks.Query{Host: r.Host, Port: r.Port, User: r.User, From: addrPort(conn.RemoteAddr()).Addr()}
}

// addrPort is a TCP address, not valid for any other.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// overExits tries one exit after the other until one does what try asks of it, or says that the target is at fault.
func (c *Client) overExits(ctx context.Context, pool *exits, try func(exit key.Public) (done bool, err error)) error {
	order, err := pool.pick(ctx)
	if err != nil {
		return err
	}
	faults := make(map[key.Public]error)
	for _, e := range order {
		done, err := try(e.key)
		if err == nil || done {
			pool.worked(e.key)
			return nil
		}
		var v *Verdict
		if errors.As(err, &v) && !v.elsewhere() {
			pool.worked(e.key) // the exit is fine, the target is not
			return v
		}
		if ctx.Err() != nil || errors.Is(err, errProgramGone) {
			return err
		}
		pool.failed(e.key, err)
		faults[e.key] = err
	}
	return &noExitError{faults: faults, order: order}
}

// ofService puts the error of a published service into a program's terms.
func ofService(w way, err error) error {
	var v *Verdict
	if err == nil || errors.As(err, &v) {
		return err
	}
	return &Verdict{socks.HostUnreachable, clean(fmt.Sprintf("service %q of %s: %v", w.service, w.key.Short(), err))}
}

// exitNames tells apart the lists of exits.
func (w way) exitNames() string {
	if w.exits == nil {
		return ""
	}
	return strings.Join(w.exits.servers, ",")
}
