package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/link"
	"skywire/mesh/link/framed"
	"skywire/mesh/link/tcp"
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
}

// newCarriers opens the listeners.
func newCarriers(n *Node) (*carriers, error) {
	c := &carriers{n: n}
	var err error
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
	c.told = append(c.told, a.String())
	c.n.log.Info("listening", "addr", a.String())
	return l, nil
}

// run works until ctx ends: connections, and the end of those that nobody needs.
func (c *carriers) run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the owner has said goodbye
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.set.Run(running) }()
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
		wanted := map[forward.Endpoint]bool{}
		if c.n.do(ctx, func(now time.Duration) {
			c.n.core.links.All(func(l *link.Link) {
				for _, e := range l.Using() {
					wanted[e] = true
				}
			})
		}) == nil {
			c.set.Sweep(streamIdle, func(e forward.Endpoint) bool { return wanted[e] })
		}
	}
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
