package api

import (
	"context"
	"io"
	"net"
	"os"
	"sync"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// A program that dials the node's own key is joined with the program of this box that offers the service: what works from
// any other node works from here, too. No stream of the mesh lies between, so nothing is limited or counted.

// dialSelf does so until both directions have ended.
func (s *Server) dialSelf(ctx context.Context, c *client, self key.Public, p app.RequestParams) {
	sv := s.apps.service(p.Service)
	switch {
	case sv == nil:
		c.refuse(signal.Errorf(signal.ErrNotFound, "service %q is not offered by this node", p.Service))
		return
	case p.Packets:
		c.refuse(signal.Errorf(signal.ErrUnsupported, "flows of packets to a service of this node itself"))
		return
	case !s.apps.allowed(sv, self):
		c.refuse(signal.Errorf(signal.ErrRefused, "service %q is not for this node itself", p.Service))
		return
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := watch(c.UnixConn, cancel)
	w, v, f, err := s.handSelf(waiting, sv, self, p.Header)
	stop()
	if w != nil {
		defer w.close()
		sv.count(1)
		defer sv.count(-1)
	}
	if err == nil {
		err = waiting.Err()
	}
	if err == nil {
		err = c.say(app.Response{Result: &app.Result{Key: self.String(), Reply: v.Reply}})
	}
	if err != nil {
		closeFile(f)
		c.refuse(err)
		return
	}
	a, err := s.endOf(ctx, c, p.HandOver)
	if err != nil {
		closeFile(f)
		c.refuse(err)
		return
	}
	defer a.Close()
	b := net.Conn(w.UnixConn)
	if v.HandOver {
		if b, err = given(f); err != nil {
			c.refuse(err)
			w.refuse(err)
			return
		}
		defer b.Close()
	}
	sent, received := joinLocal(ctx, a, b)
	if p.HandOver {
		c.say(app.Traffic{Sent: sent, Received: received})
	}
	if v.HandOver {
		w.say(app.Traffic{Sent: received, Received: sent})
	}
}

// handSelf finds a program that takes the stream, and hears its verdict.
func (s *Server) handSelf(ctx context.Context, sv *service, self key.Public, header []byte) (c *client, v app.Verdict, f *os.File, err error) {
	for {
		w, why := sv.next(ctx, ctx.Done())
		if why != nil {
			return nil, v, nil, why
		}
		c, alive := w.client, w.take()
		if alive && c.say(app.Response{Result: &app.Result{Key: self.String(), Header: header}}) == nil {
			if f, err = c.hear(ctx, &v); err == nil && !v.OK {
				if err = signal.ErrRefused; v.Error != nil {
					err = v.Error
				}
			}
			return c, v, f, err
		}
		c.close() // it has gone
	}
}

// endOf is the dialling program's end: its own connection, or one that it hands over.
func (s *Server) endOf(ctx context.Context, c *client, handOver bool) (net.Conn, error) {
	if !handOver {
		return c.UnixConn, nil
	}
	var line struct {
		HandOver bool `json:"handover"`
	}
	f, err := c.hear(ctx, &line)
	if err != nil {
		return nil, err
	}
	return given(f)
}

// given makes a connection of a descriptor that came with a line.
func given(f *os.File) (net.Conn, error) {
	if f == nil {
		return nil, signal.Errorf(signal.ErrUsage, "no descriptor with the line")
	}
	defer f.Close()
	return passedSocket(f, false)
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// joinLocal moves bytes both ways until both directions have ended, or one breaks.
func joinLocal(ctx context.Context, a, b net.Conn) (sent, received uint64) {
	cut := func() { a.Close(); b.Close() }
	defer context.AfterFunc(ctx, cut)()
	var wg sync.WaitGroup
	oneWay := func(dst, src net.Conn) uint64 {
		n, err := io.Copy(dst, src)
		h, ok := dst.(interface{ CloseWrite() error })
		if err == nil && ok {
			err = h.CloseWrite()
		}
		if err != nil || !ok {
			cut()
		}
		return uint64(n)
	}
	wg.Go(func() { received = oneWay(a, b) })
	sent = oneWay(b, a)
	wg.Wait()
	return sent, received
}
