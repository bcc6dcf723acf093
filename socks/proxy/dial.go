package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"skywire/socks"
)

// defaultDialTimeout covers name resolution and both address families. It is below the client's own limit, so that the
// exit's verdict arrives and not the client's guess.
const defaultDialTimeout = 15 * time.Second

// firstTimeout bounds the writing of the bytes sent ahead: they fit into any socket buffer, so waiting means trouble.
const firstTimeout = 5 * time.Second

// How addresses are raced (RFC 8305, 8).
const (
	resolutionDelay = 50 * time.Millisecond  // that IPv4 waits for IPv6 addresses that are still being asked for
	attemptDelay    = 250 * time.Millisecond // between the starts of two attempts
	maxAttempts     = 8                      // addresses tried for one connection
)

// dialer opens the exit's connections: names by the exit's resolver, addresses raced with IPv6 ahead, the policy asked for
// each address right before it is connected to.
type dialer struct {
	open    func(ctx context.Context, addr string) (*net.TCPConn, error)
	names   *resolver
	policy  *policy
	timeout time.Duration
}

func newDialer(r *resolver, p *policy, timeout time.Duration) dialer {
	if timeout == 0 {
		timeout = defaultDialTimeout
	}
	nd := net.Dialer{KeepAliveConfig: keepAlive()}
	return dialer{timeout: timeout, names: r, policy: p, open: func(ctx context.Context, addr string) (*net.TCPConn, error) {
		c, err := nd.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil // network "tcp" makes no other
	}}
}

// keepAlive finds dead ends of idle connections within about five minutes without waking a battery's radio every 15 s.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 6}
}

// dial connects to the header's target and writes what was sent ahead.
func (d *dialer) dial(ctx context.Context, h Header) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.connect(ctx, h)
	if err != nil || len(h.First) == 0 {
		return conn, err
	}
	err = conn.SetWriteDeadline(time.Now().Add(firstTimeout))
	if err == nil {
		_, err = conn.Write(h.First)
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("bytes sent ahead: %w", err)
	}
	return conn, nil
}

func (d *dialer) connect(ctx context.Context, h Header) (*net.TCPConn, error) {
	to := dest{network: "tcp", port: h.Port}
	if a, err := netip.ParseAddr(h.Host); err == nil {
		return d.attempt(ctx, to, a)
	}
	to.name = foldName(h.Host)
	if err := d.policy.CheckName(to); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the losers
	return d.race(ctx, to, d.resolve(ctx, h.Host))
}

// attempt connects to one address, if the policy leads there.
func (d *dialer) attempt(ctx context.Context, to dest, a netip.Addr) (*net.TCPConn, error) {
	if err := d.policy.Check(to, a); err != nil {
		return nil, err
	}
	return d.open(ctx, netip.AddrPortFrom(a.Unmap(), to.port).String())
}

// found is what the resolver says of one family.
type found struct {
	six   bool
	addrs []netip.Addr
	err   error
}

// resolve asks for both families at once. Both answers come on the channel, which has room for them.
func (d *dialer) resolve(ctx context.Context, name string) <-chan found {
	answers := make(chan found, 2)
	for _, family := range [...]string{"ip6", "ip4"} {
		go func() { // ends with ctx at the latest
			addrs, err := d.names.lookup(ctx, name, family)
			answers <- found{six: family == "ip6", addrs: addrs, err: err}
		}()
	}
	return answers
}

// tries is a race: addresses that wait for their turn, and what became of those that had it.
type tries struct {
	six, four []netip.Addr
	last      bool // the family that was tried last is IPv6
	asked     int  // families without an answer
	made      int
	running   int
	due       bool  // the turn of an address came when there was none
	err       error // why the first attempt failed, or nothing could be attempted
}

// next takes the families in turn, IPv6 first.
func (t *tries) next() (a netip.Addr, ok bool) {
	if t.made == maxAttempts {
		return a, false
	}
	from := &t.six
	if len(t.six) == 0 || t.last && len(t.four) > 0 {
		from = &t.four
	}
	if len(*from) == 0 {
		return a, false
	}
	a, *from = (*from)[0], (*from)[1:]
	t.last = a.Is6()
	t.made++
	return a, true
}

// learn takes an answer of the resolver.
func (t *tries) learn(f found) {
	t.asked--
	if f.six {
		t.six = f.addrs
	} else {
		t.four = f.addrs
	}
	if f.err != nil {
		t.fail(f.err)
	}
}

// soon is when the next attempt begins because f was learnt; not ok: the timer runs for it.
func (t *tries) soon(f found) (wait time.Duration, ok bool) {
	switch {
	case t.made == 0 && t.asked > 0 && !f.six && len(f.addrs) > 0:
		return resolutionDelay, true
	case t.made == 0, t.due:
		return 0, true
	}
	return 0, false
}

// over reports that nothing more can come.
func (t *tries) over() bool {
	return t.running == 0 && t.asked == 0 && (t.made == maxAttempts || len(t.six)+len(t.four) == 0)
}

// fail keeps the error that says most: a target's own answer before the policy's, both before the resolver's, of which
// one that is no "no such name" counts more.
func (t *tries) fail(err error) {
	if t.err == nil || weight(err) > weight(t.err) {
		t.err = err
	}
}

func weight(err error) int {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return 0
	case errors.As(err, &dns), errors.Is(err, context.Canceled):
		return 1
	case errors.Is(err, ErrPolicy):
		return 3
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return 2 // most often a box without IPv6, which says nothing of the target
	}
	return 4
}

// race connects to the addresses of a name, each attemptDelay after the one before or when that has failed; the first
// connection wins, whoever comes later is closed.
func (d *dialer) race(ctx context.Context, to dest, answers <-chan found) (*net.TCPConn, error) {
	type result struct {
		conn *net.TCPConn
		err  error
	}
	results := make(chan result)
	done := make(chan struct{})
	defer close(done)
	t := tries{asked: 2}
	turn := time.NewTimer(0)
	defer turn.Stop()
	for {
		select {
		case f := <-answers:
			t.learn(f)
			if wait, ok := t.soon(f); ok {
				turn.Reset(wait)
			}
		case <-turn.C:
			a, ok := t.next()
			if t.due = !ok; t.due {
				break
			}
			t.running++
			turn.Reset(attemptDelay)
			go func() { // ends with ctx at the latest
				conn, err := d.attempt(ctx, to, a)
				select {
				case results <- result{conn, err}:
				case <-done:
					if conn != nil {
						conn.Close()
					}
				}
			}()
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			t.running--
			t.fail(r.err)
			turn.Reset(0)
		}
		if t.over() {
			return nil, t.err
		}
	}
}

// verdictOf puts a failed dial into the words of RFC 1928. Texts name what the client asked for and nothing that the exit
// found out: an address inside the exit's network is not the client's business.
func verdictOf(h Header, err error) *Verdict {
	v := &Verdict{Code: socks.Failed}
	reason := "the exit could not connect"
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrPolicy):
		v.Code, reason = socks.NotAllowed, "the exit does not lead there ("+policyReason(err)+")"
	case errors.As(err, &dns) && dns.IsNotFound:
		v.Code, reason = socks.HostUnreachable, "no such name at the exit"
	case errors.As(err, &dns) && !dns.IsTimeout:
		v.Code, reason = socks.HostUnreachable, "the exit could not resolve the name"
	case errors.Is(err, syscall.ECONNREFUSED):
		v.Code, reason = socks.Refused, "connection refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		v.Code, reason = socks.NetworkUnreachable, "network unreachable from the exit"
	case errors.Is(err, syscall.EHOSTUNREACH):
		v.Code, reason = socks.HostUnreachable, "host unreachable from the exit"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		v.Code, reason = socks.NotAllowed, "a firewall on the exit forbids it"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		v.Code, reason = verdictBusy, "the exit is out of file descriptors"
	case errors.Is(err, context.Canceled):
		v.Code, reason = verdictBusy, "the exit is ending"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		v.Code, reason = socks.Expired, "no answer in time"
	}
	v.Text = fmt.Sprintf("%s: %s", net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))), reason)
	return v
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// policyReason is the policy's own text, without net's wrapping, which names the address.
func policyReason(err error) string {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if errors.Unwrap(e) == ErrPolicy {
			return e.Error()
		}
	}
	return ErrPolicy.Error()
}
