package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Limits of the cache of names.
const (
	maxNames      = 1024             // entries; one takes some 300 bytes
	maxLookups    = 128              // at once: each has a socket
	maxAddresses  = 16               // of one family of a name
	mostTTL       = time.Hour        // a longer one outlives most moves of servers
	mostNegative  = 5 * time.Minute  // RFC 2308, 5 allows hours
	untold        = 5 * time.Second  // of answers without a TTL: /etc/hosts, which may be edited
	silentServers = time.Second      // no server answered: a wave of programs shall not wait in turn
	lookupTimeout = 10 * time.Second // of one lookup, which goes on when the first asker has left
)

// resolver is the exit's cache over net.Resolver, which knows hosts, resolv.conf, search domains, retries and TCP. It
// lives as long as the answers say: their TTLs are read as they pass, since net.Resolver does not tell them.
type resolver struct {
	ask *net.Resolver
	now func() time.Time
	ctx context.Context // of lookups, which outlive their askers
	end context.CancelFunc
	run chan struct{} // held by lookups

	mu      sync.Mutex // guards the fields below
	entries map[question]*cached
	wg      sync.WaitGroup // lookups
	closed  bool
	stats   dnsStats
}

// dnsStats counts questions by who answered.
type dnsStats struct{ hits, asked uint64 }

// question is a name and a family: "ip4" or "ip6".
type question struct{ name, family string }

// cached is an answer, or a question under way.
type cached struct {
	done  chan struct{} // closed when the rest is set
	addrs []netip.Addr
	err   error
	until time.Time // guarded by resolver.mu; zero while it is under way
}

func newResolver(r *net.Resolver) *resolver {
	if r == nil {
		r = &net.Resolver{}
	}
	dial := r.Dial
	if dial == nil {
		var d net.Dialer
		dial = d.DialContext
	}
	heard := &net.Resolver{ // PreferGo: the C resolver takes a thread for each question, and can't be listened to
		PreferGo: true, StrictErrors: r.StrictErrors,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if life, ok := ctx.Value(lifeKey{}).(*life); ok && err == nil {
				return listen(c, life), nil
			}
			return c, err
		},
	}
	res := &resolver{ask: heard, now: time.Now, entries: make(map[question]*cached), run: make(chan struct{}, maxLookups)}
	res.ctx, res.end = context.WithCancel(context.Background())
	return res
}

// lookup returns the addresses of a name in one family, the best first. An error is a *net.DNSError or the end of ctx.
func (r *resolver) lookup(ctx context.Context, name, family string) ([]netip.Addr, error) {
	q := question{strings.ToLower(name), family}
	r.mu.Lock()
	n := r.entries[q]
	switch {
	case n != nil && (n.until.IsZero() || r.now().Before(n.until)):
		r.stats.hits++
	case r.closed:
		r.mu.Unlock()
		return nil, context.Canceled
	case !r.makeRoomLocked():
		r.mu.Unlock()
		return nil, &net.DNSError{Err: "too many questions at once", Name: q.name, IsTemporary: true}
	default:
		r.stats.asked++
		n = &cached{done: make(chan struct{})}
		r.entries[q] = n
		r.wg.Go(func() { r.fetch(q, n) })
	}
	r.mu.Unlock()
	select {
	case <-n.done:
		return n.addrs, n.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// makeRoomLocked drops what has run out, else some entry: maps are walked from a random place. There is no room if all are
// being asked for.
func (r *resolver) makeRoomLocked() bool {
	if len(r.entries) < maxNames {
		return true
	}
	now := r.now()
	var any question
	for q, n := range r.entries {
		if n.until.IsZero() {
			continue
		}
		if any = q; !now.Before(n.until) {
			delete(r.entries, q)
		}
	}
	if len(r.entries) >= maxNames {
		delete(r.entries, any)
	}
	return len(r.entries) < maxNames
}

// fetch asks for q.
func (r *resolver) fetch(q question, n *cached) {
	select {
	case r.run <- struct{}{}:
		defer func() { <-r.run }()
	case <-r.ctx.Done(): // the lookup says so
	}
	var l life
	ctx, cancel := context.WithTimeout(context.WithValue(r.ctx, lifeKey{}, &l), lookupTimeout)
	defer cancel()
	n.addrs, n.err = r.ask.LookupNetIP(ctx, q.family, q.name)
	if errors.As(n.err, new(*net.AddrError)) { // /etc/hosts has addresses of the other family only
		n.err = &net.DNSError{Err: "no address of this family", Name: q.name, IsNotFound: true}
	}
	n.addrs = n.addrs[:min(len(n.addrs), maxAddresses)]
	for i, a := range n.addrs {
		n.addrs[i] = a.Unmap()
	}
	ttl := l.last(n.err)
	r.mu.Lock()
	n.until = r.now().Add(ttl)
	if ttl <= 0 && r.entries[q] == n {
		delete(r.entries, q)
	}
	r.mu.Unlock()
	close(n.done)
}

// close ends the lookups that are under way.
func (r *resolver) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.wg.Wait()
}

func (r *resolver) counts() dnsStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// lifeKey finds the life of a lookup in its context.
type lifeKey struct{}

// life is how long the answers to one lookup may be kept.
type life struct {
	mu       sync.Mutex // guards the fields below
	positive uint32     // the shortest TTL, plus one; 0: none seen
	negative uint32     // what RFC 2308 takes from the SOA, plus one
}

// last is how long the outcome of a lookup is kept.
func (l *life) last(err error) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var dns *net.DNSError
	switch {
	case err == nil && l.positive == 0:
		return untold
	case err == nil:
		return min(time.Duration(l.positive-1)*time.Second, mostTTL)
	case !errors.As(err, &dns) || !dns.IsNotFound:
		return silentServers
	case l.negative == 0:
		return untold
	}
	return min(time.Duration(l.negative-1)*time.Second, mostNegative)
}

// hear takes the TTLs out of a server's answer. What it cannot read, net.Resolver will not take either.
func (l *life) hear(b []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(b); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	shorter := func(have *uint32, ttl uint32) {
		if ttl > 1<<31-1 { // RFC 2181, 8
			ttl = 0
		}
		if *have == 0 || ttl < *have-1 {
			*have = ttl + 1
		}
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			break
		}
		shorter(&l.positive, h.TTL)
		if p.SkipAnswer() != nil {
			return
		}
	}
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			return
		}
		shorter(&l.negative, min(h.TTL, soa.MinTTL))
	}
}

// listen lets l hear what c reads. Where net.Resolver looks for a PacketConn, it has to find one.
func listen(c net.Conn, l *life) net.Conn {
	if p, ok := c.(net.PacketConn); ok {
		return &heardPackets{heardConn{c, l, nil}, p}
	}
	return &heardConn{Conn: c, life: l}
}

// heardConn is a TCP connection to a server: each message has its length in front.
type heardConn struct {
	net.Conn
	life *life
	part []byte // of the message that is being read, with its length
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.part = append(c.part, b[:n]...)
	if len(c.part) >= 2 {
		if size := 2 + int(c.part[0])<<8 + int(c.part[1]); len(c.part) >= size {
			c.life.hear(c.part[2:size])
			c.part = c.part[size:]
		}
	}
	return n, err
}

// heardPackets is a UDP socket to a server: each read is a message.
type heardPackets struct {
	heardConn
	net.PacketConn
}

func (c *heardPackets) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.life.hear(b[:n])
	}
	return n, err
}
