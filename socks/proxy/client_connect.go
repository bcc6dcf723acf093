package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/socks"
)

// firstWait is how long an optimistic client waits for the first bytes of a program that it has answered: programs that
// speak first do so at once, and the others lose no more than this.
const firstWait = 10 * time.Millisecond

// errProgramGone is returned when the program has left before its answer.
var errProgramGone = errors.New("the program has hung up")

// connect gives the program its connection. It returns an error only while conn is still ours and the program waits for
// its answer; stop unties conn from the run's end.
func (c *Client) connect(ctx context.Context, r *socks.Request, conn Stream, stop func() bool) error {
	w, err := c.wayTo(ctx, query(r, conn))
	if err != nil {
		return err
	}
	h := &handing{c: c, r: r, conn: conn, stop: stop}
	if w.action == socks.Through && (c.c.Optimistic || r.Protocol == socks.Diverted) { // a diverted program has its connection
		if err := h.grantEarly(w.service == ""); err != nil {
			stop()
			conn.Close()
			return nil
		}
	}
	err = h.give(ctx, w)
	if err == nil || !h.granted {
		return err
	}
	// The program has been told yes: an end that looks like one of the target's own would be a lie.
	c.stats.denied.Add(1)
	c.c.Log.Debug("connection broken after an early answer", "target", r.Address(), "err", err)
	stop()
	abort(conn)
	return nil
}

// handing is a program's connection on its way to the node.
type handing struct {
	c       *Client
	r       *socks.Request
	conn    Stream
	stop    func() bool
	granted bool // the program has its answer
}

// grantEarly answers before the exit has, and takes the first bytes if they may travel with the target.
func (h *handing) grantEarly(take bool) error {
	if err := h.grant(); err != nil {
		return err
	}
	if !take || len(h.r.First) > 0 || serverFirst(h.r.Port) {
		return nil
	}
	if err := h.conn.SetReadDeadline(time.Now().Add(firstWait)); err != nil {
		return err
	}
	b := make([]byte, socks.MaxFirst)
	n, err := h.conn.Read(b)
	h.r.First = b[:n]
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) { // after its end a program may still read
		return err
	}
	return h.conn.SetReadDeadline(time.Time{})
}

// serverFirst reports whether whoever dials the port waits for the server's first word.
func serverFirst(port uint16) bool {
	switch port {
	case 21, 22, 25, 110, 143, 587, 3306:
		return true
	}
	return false
}

// grant answers the program once.
func (h *handing) grant() error {
	if h.granted {
		return nil
	}
	err := h.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	if err == nil {
		err = h.r.Grant(h.conn)
	}
	if err == nil {
		err = h.conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errProgramGone, err)
	}
	h.granted = true
	h.c.stats.granted.Add(1)
	return nil
}

// give joins the program with its target: by the node where it can, else by this program.
func (h *handing) give(ctx context.Context, w way) error {
	socket, ok := h.conn.(app.Socket)
	if !ok || w.action == socks.Direct || w.service != "" && len(h.r.First) > 0 {
		return h.carry(ctx, w)
	}
	if w.service != "" {
		_, err := h.over(ctx, w.key, w.service, nil, socket)
		return ofService(w, err)
	}
	header := Header{Host: h.r.Host, Port: h.r.Port, First: h.r.First}.Append(nil)
	h.r.First = nil
	return h.c.overExits(ctx, w.exits, func(exit key.Public) (bool, error) {
		return h.over(ctx, exit, Service, header, socket)
	})
}

// over tries one node. given reports that the connection has been handed over; its end is no error then.
func (h *handing) over(ctx context.Context, to key.Public, service string, header []byte, conn app.Socket) (given bool, err error) {
	c := h.c
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.c.OpenTimeout, func() {
		cancel(fmt.Errorf("no answer within %s", c.c.OpenTimeout))
	})
	defer late.Stop()
	prepare := func([]byte) (app.Socket, error) {
		if !late.Stop() || !h.stop() {
			return nil, context.Canceled
		}
		if err := h.grant(); err != nil {
			return nil, err
		}
		given = true
		c.noExit.Store(false)
		return conn, nil
	}
	t, err := c.c.Node.DialHandOver(ctx, to, service, header, prepare)
	c.stats.sent.Add(t.Sent)
	c.stats.received.Add(t.Received)
	if !given {
		if err != nil && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return false, err
	}
	if err != nil {
		c.c.Log.Debug("connection ended", "peer", to.Short(), "err", err)
	}
	return true, nil
}

// carry joins the program with its target in this process, until both directions have ended.
func (h *handing) carry(ctx context.Context, w way) error {
	s, err := h.c.open(ctx, w, h.r.Host, h.r.Port, h.r.First)
	if err != nil {
		return err
	}
	if err := h.grant(); err != nil {
		s.Close()
		return err
	}
	if w.action == socks.Direct {
		h.c.stats.direct.Add(1)
	}
	sent, received := relay(ctx, h.conn, s)
	h.c.stats.sent.Add(sent + uint64(len(h.r.First)))
	h.c.stats.received.Add(received)
	return nil
}

// open opens a stream to the target and writes first to it.
func (c *Client) open(ctx context.Context, w way, host string, port uint16, first []byte) (s Stream, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.c.OpenTimeout, fmt.Errorf("no answer within %s", c.c.OpenTimeout))
	defer cancel()
	switch {
	case w.action == socks.Direct:
		s, err = dialDirect(ctx, host, port)
	case w.service != "":
		s, err = c.c.Node.Dial(ctx, w.key, w.service, nil)
		err = ofService(w, err)
	default:
		header := Header{Host: host, Port: port, First: first}.Append(nil)
		err = c.overExits(ctx, w.exits, func(exit key.Public) (bool, error) {
			var err error
			s, err = c.c.Node.Dial(ctx, exit, Service, header)
			return err == nil, err
		})
		first = nil
	}
	if err != nil {
		return nil, err
	}
	if len(first) > 0 {
		if _, err := s.Write(first); err != nil {
			s.Close()
			return nil, fmt.Errorf("first bytes: %w", err)
		}
	}
	c.noExit.Store(false)
	return s, nil
}

// dialDirect connects from this box.
func dialDirect(ctx context.Context, host string, port uint16) (Stream, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		v := verdictOf(Header{Host: host, Port: port}, err)
		v.Text = strings.ReplaceAll(v.Text, "the exit", "this box")
		return nil, v
	}
	return conn.(*net.TCPConn), nil // network "tcp" makes no other
}

// relay copies both ways until both have ended, or ctx has. A broken direction breaks both ends, and so does the end of ctx: what
// was cut must not look whole to a program that reads until the end.
func relay(ctx context.Context, a, b Stream) (up, down uint64) {
	defer context.AfterFunc(ctx, func() { abort(a); abort(b) })()
	var wg sync.WaitGroup
	wg.Go(func() { up = pipe(b, a) })
	down = pipe(a, b)
	wg.Wait()
	a.Close()
	b.Close()
	return up, down
}

// pipe copies one direction.
func pipe(dst, src Stream) uint64 {
	n, err := io.Copy(dst, src)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		abort(src)
		abort(dst)
	}
	return uint64(n)
}

// abort ends a connection such that the other side sees a break and no orderly end.
func abort(s Stream) {
	if a, ok := s.(ahead); ok {
		s = a.Stream
	}
	if t, ok := s.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	s.Close()
}
