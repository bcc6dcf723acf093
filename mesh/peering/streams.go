package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// serveDial joins a visitor's stream with what it was given: an exported service or subnet. All else is refused alike.
func (g *Gateway) serveDial(ctx context.Context, home *app.Client, in *app.Incoming) {
	c := &cursor{b: in.Header[2:]}
	name := c.text(member.MaxName)
	v, p, e, err := g.admit(in.Peer, name)
	if err == nil && c.bad {
		err = fmt.Errorf("dial: %w", ErrFormat)
	}
	if err != nil {
		var known *signal.Error
		if !errors.As(err, &known) {
			known = signal.ErrRefused
		}
		g.c.Log.Info("visitor refused", "peer", in.Peer, "service", name, "err", err)
		_ = in.Refuse(known.Name, err.Error())
		return
	}
	defer g.leave(v)
	dialing, cancel := context.WithTimeout(ctx, askDial)
	defer cancel()
	if in.Packets {
		g.servePackets(dialing, home, in, v, p, e, c.b)
		return
	}
	socket, reply, err := g.target(dialing, home, e, c.b)
	if err != nil {
		_ = in.Refuse(nameNotReached, "the service is not reached: "+err.Error())
		return
	}
	give := p.Gives()
	if give.Quota == 0 {
		in.Limit(app.Limits{Rate: give.Rate})
		t, err := in.HandOver(reply, socket)
		g.spend(p, t.Sent+t.Received)
		if err != nil {
			g.c.Log.Debug("stream of visitor ended", "peer", in.Peer, "service", name, "err", err)
		}
		return
	}
	conn, err := in.Accept(reply)
	if err != nil {
		socket.Close()
		return
	}
	g.joinCounted(v, p, name, conn, socket)
}

func (g *Gateway) spend(p *Peering, n uint64) bool {
	book, err := g.theBook()
	return err == nil && book.Spend(p.Pair, n, g.now())
}

// admit judges a visitor's wish by the record as it is now.
func (g *Gateway) admit(peer key.Public, name string) (*guest, *Peering, *Export, error) {
	g.mu.Lock()
	v := g.guests[peer]
	g.mu.Unlock()
	if v == nil {
		return nil, nil, nil, &signal.Error{Code: -32000, Name: nameUnknown, Message: "say hello first"}
	}
	p, ok := g.with(v.cluster)
	if !ok {
		return nil, nil, nil, signal.Errorf(signal.ErrRefused, "the peering is over")
	}
	e := p.Gives().Find(name)
	if e == nil {
		return nil, nil, nil, signal.Errorf(signal.ErrRefused, "nothing is exported under this name")
	}
	if !g.spend(&p, 0) {
		return nil, nil, nil, signal.Errorf(signal.ErrRefused, "the quota of the peering is used up")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.streams >= guestStreams {
		return nil, nil, nil, signal.Errorf(signal.ErrBusy, "too many streams")
	}
	v.streams++
	v.used = time.Now()
	return v, &p, e, nil
}

func (g *Gateway) leave(v *guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v.streams--
	v.used = time.Now()
}

// socket is a connection that can be handed over, or read and written.
type socket interface {
	net.Conn
	app.Socket
	CloseWrite() error
}

// target reaches what an export stands for.
func (g *Gateway) target(ctx context.Context, home *app.Client, e *Export, header []byte) (socket, []byte, error) {
	if e.Service == "" {
		addr, err := e.address(header)
		if err != nil {
			return nil, nil, err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return nil, nil, errors.New("no answer there") // the other side has no use for our addresses
		}
		return conn.(*net.TCPConn), nil, nil
	}
	k, err := g.provider(ctx, home, e)
	if err != nil {
		return nil, nil, err
	}
	s, err := home.Dial(ctx, k, e.Service, header)
	if err != nil {
		return nil, nil, err
	}
	return s, s.Reply(), nil
}

// provider is the node of ours that is to serve an export: the one that it names, or the nearest that offers it.
func (g *Gateway) provider(ctx context.Context, home *app.Client, e *Export) (key.Public, error) {
	if !e.Node.IsZero() {
		return e.Node, nil
	}
	all, err := home.Services(ctx, "")
	if err != nil {
		return key.Public{}, err
	}
	for _, s := range all {
		if s.Name != e.Service || !s.Online {
			continue
		}
		if e.Tag != "" {
			who, err := home.Whois(ctx, s.Key.String())
			if err != nil || !who.Member || !slices.Contains(who.Tags, e.Tag) {
				continue
			}
		}
		return s.Key, nil
	}
	return key.Public{}, errors.New("no node offers it now")
}

// address is where a stream to a subnet goes: the one address there is, or what the header says, the way exits are told:
// version 1 │ port 2 │ host {length 1, text}.
func (e *Export) address(header []byte) (netip.AddrPort, error) {
	if e.Type == "tcp" {
		return netip.AddrPortFrom(e.Subnet.Addr(), e.Low), nil
	}
	c := &cursor{b: header}
	version, port := c.u8(), c.u16()
	a, err := netip.ParseAddr(c.text(64))
	if err != nil || c.bad || version != 1 {
		return netip.AddrPort{}, signal.Errorf(signal.ErrRefused, "an address in figures is needed here")
	}
	if a = a.Unmap().WithZone(""); !e.Subnet.Contains(a) || port < e.Low || port > e.High {
		return netip.AddrPort{}, signal.Errorf(signal.ErrRefused, "not in what is exported")
	}
	return netip.AddrPortFrom(a, port), nil
}

// countEvery is how many bytes go uncounted at most.
const countEvery = 64 << 10

// joinCounted moves bytes both ways, at the rate of the export, while there is something left of the quota.
func (g *Gateway) joinCounted(v *guest, p *Peering, export string, a net.Conn, b socket) {
	defer a.Close()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.moveCounted(p, g.paceOf(v, p, paceKey{export, false}), b, a)
	}()
	g.moveCounted(p, g.paceOf(v, p, paceKey{export, true}), a, b)
	<-done
}

func (g *Gateway) moveCounted(p *Peering, rate *pace, dst, src net.Conn) {
	for {
		n, err := io.CopyN(dst, src, rate.piece())
		if !g.spend(p, uint64(n)) {
			err = io.ErrClosedPipe
		}
		if err == nil {
			rate.wait(int(n))
			continue
		}
		if h, ok := dst.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
			_ = h.CloseWrite()
			return
		}
		dst.Close()
		src.Close()
		return
	}
}
