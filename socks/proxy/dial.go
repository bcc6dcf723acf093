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

// dialer opens the exit's connections: names by the exit's resolver, IPv6 and IPv4 raced (RFC 8305), the policy asked for
// each address at the moment of connecting.
type dialer struct {
	net     net.Dialer
	timeout time.Duration
}

func newDialer(r *net.Resolver, p *policy, timeout time.Duration) dialer {
	if timeout == 0 {
		timeout = defaultDialTimeout
	}
	if r == nil {
		r = &net.Resolver{PreferGo: true} // the C resolver takes a thread for each question
	}
	return dialer{timeout: timeout, net: net.Dialer{
		Resolver:        r,
		KeepAliveConfig: keepAlive(),
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %s", ErrPolicy, network)
			}
			return p.Check(ap.Addr())
		},
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
	c, err := d.net.DialContext(ctx, "tcp", net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))))
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn) // network "tcp" makes no other
	if len(h.First) == 0 {
		return conn, nil
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
