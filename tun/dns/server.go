package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
)

// Names says who is called what, for certain. Both return ErrNoName, alone or wrapped, for what nobody has.
type Names interface {
	Lookup(ctx context.Context, name string) (app.Names, error)
	LookupAddr(ctx context.Context, a netip.Addr) (app.Names, error)
}

// Config is what a Server is told once.
type Config struct {
	// Listen is tried in order; the first address on which both UDP and TCP are free is taken.
	Listen []netip.AddrPort
	// Names answers for the mesh; nil: questions about it are refused.
	Names Names
	// Reverse are the networks whose addresses' names Names knows.
	Reverse []netip.Prefix
	// Learned is told the addresses of each name that was asked for, before the asker is: what it does delays the answer.
	Learned func(name string, addrs []netip.Addr, ttl time.Duration)
	Log     *slog.Logger
}

// Server is a name server. Its sockets are open from New until Run returns, or Close.
type Server struct {
	c     Config
	zones []string // of Reverse
	udp   *net.UDPConn
	tcp   *net.TCPListener

	resolvers atomic.Pointer[[]netip.AddrPort] // for all other names
	best      atomic.Uint32                    // index of the one that answered last
	slots     chan struct{}                    // capacity maxUnderWay: a token for each question under way
	asked     atomic.Uint64
	failed    atomic.Uint64
}

// New opens the sockets.
func New(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, slots: make(chan struct{}, maxUnderWay)}
	for _, p := range c.Reverse {
		s.zones = append(s.zones, ReverseZones(p)...)
	}
	s.resolvers.Store(&[]netip.AddrPort{})
	var errs []error
	for _, at := range c.Listen {
		err := s.listen(at)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no address for the name server: %w", errors.Join(errs...))
}

func (s *Server) listen(at netip.AddrPort) (err error) {
	if s.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err != nil {
		return err
	}
	at = s.tcp.Addr().(*net.TCPAddr).AddrPort() // with its port, where any would do
	if s.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
		return errors.Join(err, s.tcp.Close())
	}
	return nil
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort {
	a := s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Zones are the zones that the server answers for itself, without the root's dot.
func (s *Server) Zones() []string { return append([]string{Zone}, s.zones...) }

// Forward sets who is asked about all other names; with nobody they are refused.
func (s *Server) Forward(to []netip.AddrPort) {
	if old := s.resolvers.Load(); slices.Equal(*old, to) {
		return
	}
	to = slices.Clone(to)
	s.resolvers.Store(&to)
	s.best.Store(0)
}

// Counts are the questions that came, and those among them that ended in SERVFAIL.
func (s *Server) Counts() (asked, failed uint64) { return s.asked.Load(), s.failed.Load() }

// Close ends a server that does not run.
func (s *Server) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// Run answers until ctx ends, then returns nil.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	all.Go(func() { cancel(s.serveTCP(ctx)) })
	all.Go(func() { cancel(s.serveUDP(ctx)) })
	<-ctx.Done()
	s.Close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// serveUDP answers datagrams, each in a goroutine of its own.
func (s *Server) serveUDP(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	b := make([]byte, maxMessage)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receive questions: %w", err)
		case err != nil: // an ICMP error of an earlier answer
			continue
		}
		q := slices.Clone(b[:n])
		if !s.enter() {
			s.udp.WriteToUDPAddrPort(s.busy(q), from)
			continue
		}
		all.Go(func() {
			defer s.leave()
			if a := s.answer(ctx, q, false); a != nil {
				s.udp.WriteToUDPAddrPort(a, from)
			}
		})
	}
}

// serveTCP takes connections; each asks one question after the other.
func (s *Server) serveTCP(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	conns := make(chan struct{}, maxConns)
	for {
		c, err := s.tcp.AcceptTCP()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept questions: %w", err)
		}
		select {
		case conns <- struct{}{}:
			all.Go(func() {
				defer func() { <-conns }()
				defer c.Close()
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				s.converse(ctx, c)
			})
		default:
			c.Close()
		}
	}
}

func (s *Server) converse(ctx context.Context, c *net.TCPConn) {
	for {
		q, err := readMessage(c, time.Now().Add(idle))
		if err != nil {
			return
		}
		var a []byte
		if s.enter() {
			a = s.answer(ctx, q, true)
			s.leave()
		} else {
			a = s.busy(q)
		}
		if a == nil || writeMessage(c, a, time.Now().Add(idle)) != nil {
			return
		}
	}
}

// enter takes a place among the questions under way.
func (s *Server) enter() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Server) leave() { <-s.slots }

// readMessage reads a message and the length in front of it (RFC 1035 section 4.2.2).
func readMessage(c net.Conn, deadline time.Time) ([]byte, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

func writeMessage(c net.Conn, b []byte, deadline time.Time) error {
	if err := c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
