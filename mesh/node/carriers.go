package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/link/framed"
	"skywire/mesh/link/tcp"
	"skywire/mesh/store"
)

// Carriers says how links travel where UDP does not pass.
type Carriers struct {
	Listen  []string // tcp://host:port, wss://host:port/path, ws://host:port/path; host may be empty
	Proxy   string   // http://[user:password@]host:port, through which wss goes; empty: none
	NoProxy string   // hosts, domains and prefixes that are reached without it, by commas
	SNI     string   // name told in TLS, and Host in HTTP; empty: that of the address
}

const (
	// streamIdle is how long a connection that no link uses is kept, and sweepEvery how often that is looked at.
	streamIdle = 45 * time.Second
	sweepEvery = 5 * time.Second
	// busyPause is the pause before a loop with too many calls is asked again.
	busyPause = time.Millisecond
)

// carriers is the stream connections of a node, and what it knows of ways to others.
type carriers struct {
	n    *Node
	set  *framed.Set
	told []string // what the record states of them

	mu   sync.Mutex           // guards ways
	ways map[store.Way]string // by which carrier a peer was reached, where it was not UDP
}

// newCarriers opens the listeners.
func newCarriers(n *Node) (*carriers, error) {
	c := &carriers{n: n, ways: map[store.Way]string{}}
	var err error
	if n.store != nil {
		if ways, err := n.store.Ways(); err == nil {
			c.ways = ways
		}
	}
	if c.set, err = framed.New(framed.Config{
		Take: c.take, Ended: c.ended, Strange: refuseStranger, Now: link.Now, Small: n.machine.small(), Log: n.log,
	}); err != nil {
		return nil, err
	}
	var open []net.Listener
	for _, text := range n.cfg.Carriers.Listen {
		l, err := c.listen(text)
		if err != nil {
			for _, l := range open {
				_ = l.Close()
			}
			return nil, err
		}
		open = append(open, l)
	}
	return c, nil
}

// listen opens one listener.
func (c *carriers) listen(text string) (net.Listener, error) {
	a, err := parseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", text, err)
	}
	at, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(a.host, a.port))
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", text, err)
	}
	ap := netip.AddrPortFrom(at.AddrPort().Addr().Unmap(), uint16(at.Port))
	if at.IP == nil {
		ap = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(at.Port))
	}
	first, upgrade, err := c.upgrade(a)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", text, err)
	}
	l, err := tcp.Listen(ap)
	if err != nil {
		return nil, err
	}
	c.set.Listen(l, first, upgrade)
	if bound, ok := l.Addr().(*net.TCPAddr); ok {
		a.port = fmt.Sprint(bound.Port)
	}
	if at.IP.IsUnspecified() {
		a.host = ""
	}
	if a.scheme != "ws" { // who is reached by a reverse proxy does not know as what
		c.told = append(c.told, a.String())
	}
	c.n.log.Info("listening", "addr", a.String())
	return l, nil
}

// run works until ctx ends: connections, and the end of those that nobody needs.
func (c *carriers) run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the owner has said goodbye
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.set.Run(running) }()
	_ = c.n.do(ctx, func(now time.Duration) {
		c.n.core.SetListen(c.told)
		c.n.core.newsOfRecord(now)
	})
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.n.ended:
			stop()
			return <-done
		case err := <-done:
			return err
		case <-tick.C:
		}
		c.look(ctx)
	}
}

// look does what is done now and then: ends what nobody uses, remembers what works, learns what neighbours state.
func (c *carriers) look(ctx context.Context) {
	wanted := map[forward.Endpoint]bool{}
	works := map[key.Public]string{}
	stated := map[key.Public][]address{}
	if c.n.do(ctx, func(now time.Duration) {
		c.n.core.links.All(func(l *link.Link) {
			for _, e := range l.Using() {
				wanted[e] = true
			}
			if l.State() != link.Up {
				return
			}
			c.n.core.triedWays(now, l)
			if l.Initiator() {
				works[l.Peer()] = link.CarrierOf(l.Endpoint()).String()
			}
			if e := c.n.core.db.Get(l.Peer()); e != nil {
				stated[l.Peer()] = streamsOf(e.Addrs, l.Endpoint())
			}
		})
	}) != nil {
		return
	}
	c.set.Sweep(streamIdle, func(e forward.Endpoint) bool { return wanted[e] })
	c.remember(works)
	for k, all := range stated {
		var eps []forward.Endpoint
		for _, a := range all {
			if more, err := c.targets(ctx, a); err == nil {
				eps = append(eps, more...)
			}
		}
		if len(eps) > 0 {
			_ = c.n.do(ctx, func(now time.Duration) {
				if l := c.n.core.links.ByPeer(k); l != nil {
					c.n.core.links.Know(now, l, eps)
				}
			})
		}
	}
}

// triedWays notes, for people, what the ways of a link answered that is not on them.
func (n *Core) triedWays(now time.Duration, l *link.Link) {
	for _, c := range l.Candidates() {
		a := Attempt{Carrier: link.CarrierOf(c.Endpoint).String(), Address: c.Endpoint.Addr.String(), Way: "dial", Result: "no answer"}
		switch {
		case c.Endpoint == l.Endpoint() || c.Asked == 0 || now-c.Asked > sweepEvery: // told before
			continue
		case c.Lost == 0:
			a.Result, a.Open = fmt.Sprintf("answered in %v", c.RTT.Round(100*time.Microsecond)), true
		}
		n.Tried(now, l.Peer(), a)
	}
}

// streamsOf returns the stream carriers that a neighbour's record states. One without a host is where the neighbour is.
func streamsOf(addrs []string, at forward.Endpoint) []address {
	var all []address
	for _, text := range addrs {
		a, err := parseAddress(text)
		if err != nil || a.scheme == "udp" || a.scheme == "ws" || strings.Trim(a.port, "0") == "" {
			continue
		}
		if a.host == "" {
			if link.CarrierOf(at) == link.WSS || !at.Addr.IsValid() { // that may be a proxy's
				continue
			}
			a.host = at.Addr.Addr().String()
		}
		if _, err := netip.ParseAddr(a.host); err != nil {
			continue // names of others are not looked up each time
		}
		all = append(all, a)
	}
	return all
}

// place is the network that we are in; known is false until that is.
func (c *carriers) place() (id [8]byte, known bool) {
	if c.n.reach == nil {
		return id, false
	}
	name := c.n.reach.Place()
	text := name.Network()
	sum := sha256.Sum256([]byte(text))
	return [8]byte(sum[:]), text != ""
}

// remember notes by which carrier peers are reached here, where that is not UDP.
func (c *carriers) remember(works map[key.Public]string) {
	here, known := c.place()
	if !known || c.n.store == nil {
		return
	}
	changed := map[store.Way]string{}
	c.mu.Lock()
	for k, carrier := range works {
		w := store.Way{Network: here, Peer: k}
		if carrier == link.UDP.String() {
			carrier = ""
		}
		if c.ways[w] == carrier || carrier != "" && len(c.ways) >= store.MaxWays {
			continue
		}
		changed[w] = carrier
		if c.ways[w] = carrier; carrier == "" {
			delete(c.ways, w)
		}
	}
	c.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	if err := c.n.store.Batch(func(t *store.Tx) error {
		for w, carrier := range changed {
			t.PutWay(w, carrier)
		}
		return nil
	}); err != nil {
		c.n.log.Warn("carriers not remembered", "err", err)
	}
}

// order puts the addresses first by which their peers were reached in this network. While it is not known which one that
// is, what worked anywhere is the better guess.
func (c *carriers) order(peers []Peer) []Peer {
	if c == nil {
		return peers
	}
	here, known := c.place()
	c.mu.Lock()
	defer c.mu.Unlock()
	var first, rest []Peer
	for _, p := range peers {
		a, err := parseAddress(p.Addr)
		scheme := a.scheme
		if scheme == "ws" {
			scheme = "wss"
		}
		won := false
		for w, carrier := range c.ways {
			won = won || err == nil && w.Peer == p.Key && carrier == scheme && (!known || w.Network == here)
		}
		if won {
			first = append(first, p)
		} else {
			rest = append(rest, p)
		}
	}
	return append(first, rest...)
}

// take hands what a connection has read to a loop: the one that serves all of its frames, since they must stay in order.
func (c *carriers) take(b *framed.Batch) error {
	l := c.n.loops[int(b.From.Socket)%len(c.n.loops)]
	for {
		err := l.Post(b.Run)
		if errors.Is(err, forward.ErrBusy) { // it has enough to do; meanwhile the sender's window closes
			t := time.NewTimer(busyPause)
			select {
			case <-t.C:
			case <-c.n.ended:
				t.Stop()
				return ErrClosed
			}
			continue
		}
		if err != nil {
			return err
		}
		<-b.Done // the loop runs what was posted, at its end too
		return nil
	}
}

func (c *carriers) ended(e forward.Endpoint, gone bool) {
	c.n.post(func(now time.Duration) { c.n.core.links.Lost(now, e, gone) })
}

// datagram takes note of who has proved a key, after the owner has looked at a frame of a connection.
func (c *carriers) datagram(from forward.Endpoint) {
	if from.Socket >= forward.FirstTCP && !c.set.Proven(from) && c.n.core.links.Heard(from) {
		c.set.Prove(from)
	}
}

// text is an endpoint as people write it.
func (c *carriers) text(e forward.Endpoint) string {
	if !e.Addr.IsValid() {
		return ""
	}
	if e.Socket >= forward.FirstTCP && c != nil {
		if name := c.set.Name(e); name != "" {
			return name
		}
	}
	return link.CarrierOf(e).String() + "://" + e.Addr.String()
}

// refuseStranger answers a browser that came to the wrong door.
func refuseStranger(c net.Conn, said []byte) {
	if len(said) >= 3 && said[0] >= 'A' && said[0] <= 'Z' && said[1] >= 'A' && said[1] <= 'Z' {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	}
}

// trouble is why a link is not up, in words: what dialling says comes before what silence says.
func (c *carriers) trouble(l *link.Link) string {
	if l.State() == link.Up {
		return l.Trouble()
	}
	if err := c.set.Trouble(l.Dialled()); err != nil {
		return err.Error()
	}
	return l.Trouble()
}

// pinName is how an endpoint is written where keys of addresses are kept: as ever for UDP.
func (n *Node) pinName(e forward.Endpoint) string {
	if e.Socket >= forward.FirstTCP {
		return n.carriers.text(e)
	}
	return e.Addr.String()
}
