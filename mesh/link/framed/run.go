package framed

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"skywire/mesh/forward"
)

// Run accepts and dials until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		s.wg.Go(func() { s.accept(ctx, l) })
	}
	for {
		select {
		case <-ctx.Done():
			s.end(listeners)
			s.wg.Wait()
			return nil
		case x := <-s.dials:
			s.wg.Go(func() { s.connect(ctx, x) })
		}
	}
}

func (s *Set) end(listeners []listening) {
	for _, l := range listeners {
		_ = l.l.Close()
	}
	s.mu.Lock()
	s.ended = true
	var all []*Conn
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	limit := time.Now().Add(farewell)
	for _, c := range all {
		_ = c.net.SetWriteDeadline(limit)
		c.finish()
	}
	t := time.NewTimer(farewell)
	defer t.Stop()
	for _, c := range all {
		select {
		case <-c.ended:
		case <-t.C:
			t.Reset(0) // the others have no time left either
			c.close()
		}
	}
}

// accept takes connections until the listener is closed.
func (s *Set) accept(ctx context.Context, l listening) {
	for {
		c, err := l.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			s.c.Log.Debug("connection not accepted", "err", err)
			if !pause(ctx, 100*time.Millisecond) { // out of descriptors: others end meanwhile
				return
			}
			continue
		}
		from := remote(c)
		if !s.welcome(from.Addr()) {
			_ = c.Close()
			continue
		}
		s.wg.Go(func() { s.greet(l, c, from) })
	}
}

// remote is where an accepted connection comes from.
func remote(c net.Conn) netip.AddrPort {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// host is what counts as one host.
func host(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// welcome counts a stranger, unless there are too many.
func (s *Set) welcome(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.strangers >= MaxStrangers || s.hosts[host(a)] >= MaxStrangersPerHost {
		return false
	}
	s.strangers++
	s.hosts[host(a)]++
	return true
}

// known forgets a stranger: he is one no more, or has gone.
func (s *Set) known(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strangers--
	if s.hosts[host(a)]--; s.hosts[host(a)] <= 0 {
		delete(s.hosts, host(a))
	}
}

// greet makes a stream of an accepted connection, and serves it.
func (s *Set) greet(l listening, c net.Conn, from netip.AddrPort) {
	_ = c.SetDeadline(time.Now().Add(s.c.Patience))
	stream := c
	if l.upgrade != nil {
		var err error
		if stream, err = l.upgrade(c); err != nil {
			s.c.Log.Debug("stream refused", "from", from, "err", err)
			_ = c.Close()
			s.known(from.Addr())
			return
		}
	}
	x := &slot{addr: from}
	s.mu.Lock()
	ok := s.placeLocked(x, l.first)
	s.mu.Unlock()
	if !ok {
		_ = stream.Close()
		s.known(from.Addr())
		return
	}
	conn := newConn(s, x, stream, false)
	x.conn.Store(conn)
	s.serve(conn)
	if conn.proven.CompareAndSwap(false, true) {
		s.known(from.Addr())
	}
	s.slots[index(x.endpoint())].Store(nil)
	s.c.Ended(x.endpoint(), true)
}

// connect dials a target and serves what comes of it.
func (s *Set) connect(ctx context.Context, x *slot) {
	dialling, cancel := context.WithTimeout(ctx, dialTime)
	c, err := x.dial(dialling)
	cancel()
	if err != nil {
		s.c.Log.Debug("stream not made", "addr", x.name, "err", err)
		x.mu.Lock()
		x.busy, x.failed = false, err
		x.again = s.c.Now() + min(dialPause<<min(x.tries, 8), dialPauseMax)
		x.tries++
		x.mu.Unlock()
		return
	}
	conn := newConn(s, x, c, true)
	x.mu.Lock()
	x.busy, x.failed, x.tries, x.again = false, nil, 0, 0
	conn.out = append(conn.out, x.held...)
	conn.kick <- struct{}{}
	x.conn.Store(conn)
	x.mu.Unlock()
	s.serve(conn)
	x.conn.Store(nil)
	if ctx.Err() == nil {
		s.c.Ended(x.endpoint(), false)
	}
}

// serve moves frames both ways until either fails.
func (s *Set) serve(c *Conn) {
	c.used.Store(int64(s.c.Now()))
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		c.close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.wg.Go(func() {
		_ = c.write() // the reader finds out why
		c.close()
	})
	err := c.read()
	c.close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if !ordinary(err) {
		s.c.Log.Debug("stream ended", "addr", c.slot.endpoint().Addr, "err", err)
	}
}

// pause waits, and tells whether there was time to.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var _ forward.Output = (*Set)(nil)
