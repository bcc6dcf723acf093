package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/signal"
)

// serveStream answers the first line of a stream connection. It owns c.
func (s *Server) serveStream(ctx context.Context, c *client, line []byte) {
	var r app.Request
	if err := json.Unmarshal(line, &r); err != nil || len(line) > maxLine {
		c.refuse(signal.Errorf(signal.ErrUsage, "first line: too long, or %v", err))
		c.close()
		return
	}
	if r.Method == "stream.accept" {
		s.wait(ctx, c, r.Params.Service)
		return
	}
	s.dial(ctx, c, r.Params)
}

// say writes one line to the program.
func (c *client) say(v any) error {
	c.SetWriteDeadline(time.Now().Add(lineTimeout))
	err := signal.WriteLine(c.UnixConn, v, nil)
	c.SetWriteDeadline(time.Time{})
	return err
}

// refuse says why not, in the very words of a service that refused.
func (c *client) refuse(err error) {
	err = toSignal(err)
	var e *signal.Error
	if !errors.As(err, &e) {
		e = signal.AsError(err)
	}
	c.say(app.Response{Error: e})
}

// hear reads one line, and the one descriptor that may come along.
func (c *client) hear(ctx context.Context, v any) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	c.SetReadDeadline(time.Now().Add(verdictTimeout))
	line, files, err := signal.ReadLine(c.UnixConn, maxLine)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	c.SetReadDeadline(time.Time{})
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err == nil && len(files) > 1 {
		err = fmt.Errorf("%d descriptors, want one", len(files))
	}
	if err != nil || len(files) == 0 {
		closeAll(files)
		return nil, err
	}
	return files[0], nil
}

// dial opens a stream for a program and joins it with the program's connection, or with the one that it hands over. It
// owns c. Streams stay long: they get a goroutine whose stack has not grown by all that was before.
func (s *Server) dial(ctx context.Context, c *client, p app.RequestParams) {
	if self := s.node.Info().Key; p.Key == self.String() {
		s.dialSelf(ctx, c, self, p)
		c.close()
		return
	}
	serve := s.dialled(ctx, c, p)
	switch {
	case serve == nil:
		c.close()
	case !s.begin(func() { defer c.close(); serve() }): // the node ends, and with it ctx: serve only tidies up
		serve()
		c.close()
	}
}

// dialled opens the stream and returns what serves it until it ends, nil if there is none.
func (s *Server) dialled(ctx context.Context, c *client, p app.RequestParams) (serve func()) {
	k, err := key.Parse(p.Key)
	if err != nil {
		c.refuse(signal.Errorf(signal.ErrUsage, "key %q: %v", p.Key, err))
		return nil
	}
	dialing, cancel := context.WithCancel(ctx)
	stop := watch(c.UnixConn, cancel)
	st, err := s.open(dialing, k, p)
	stop()
	cancel()
	if err != nil {
		c.refuse(err)
		return nil
	}
	st.CountIn(s.apps.tally(c.cred, ""))
	if err := c.say(app.Response{Result: &app.Result{Key: k.String(), Reply: st.Reply(), Packets: p.Packets}}); err != nil {
		st.Reset(stream.CodeReset)
		return nil
	}
	if !p.HandOver {
		return func() { s.pump(ctx, st, c.UnixConn) }
	}
	var line struct {
		HandOver bool `json:"handover"`
	}
	f, err := c.hear(ctx, &line)
	return func() { s.pumpHandedOver(ctx, c, st, f, err) }
}

// pump joins a stream with a program's own connection.
func (s *Server) pump(ctx context.Context, st carried, conn net.Conn) {
	if _, _, err := join(ctx, st, conn, true); err != nil {
		s.log.Debug("stream ended", "peer", st.Peer().Short(), "service", st.Service(), "err", err)
	}
}

// pumpHandedOver joins a stream with a descriptor and tells the program how it ended.
func (s *Server) pumpHandedOver(ctx context.Context, c *client, st carried, f *os.File, err error) {
	if err == nil && f == nil {
		err = signal.Errorf(signal.ErrUsage, "no descriptor with the line")
	}
	var conn net.Conn
	if err == nil {
		conn, err = passedSocket(f, isFlow(st))
	}
	if f != nil {
		f.Close()
	}
	if err != nil {
		st.Reset(stream.CodeReset)
		c.refuse(err)
		return
	}
	sent, received, err := join(ctx, st, conn, false)
	end := struct {
		app.Traffic
		Error *signal.Error `json:"error,omitempty"`
	}{Traffic: app.Traffic{Sent: sent, Received: received}}
	if err != nil {
		end.Error = signal.Errorf(&signal.Error{Code: -32000, Name: "reset"}, "%v", err)
	}
	c.say(end)
}

// wait puts a connection in line for the streams of a service. Who takes it owns it.
func (s *Server) wait(ctx context.Context, c *client, name string) {
	sv := s.apps.service(name)
	switch {
	case sv == nil:
		c.refuse(signal.Errorf(signal.ErrNotFound, "service %q is not registered: call app.register first", name))
	case !s.may(c, apps) || !s.may(c, operator) && c.cred.UID != sv.owner:
		c.refuse(signal.Errorf(signal.ErrRefused, "service %q belongs to uid %d", name, sv.owner))
	default:
		w := &waiter{client: c, released: make(chan struct{})}
		if sv.add(w) {
			s.watchWaiter(ctx, sv, w)
			return
		}
		c.refuse(signal.Errorf(signal.ErrBusy, "service %q: %d programs wait already", name, maxWaiting))
	}
	c.close()
}

// watchWaiter waits until the program goes away, the service does, or a stream takes the connection.
func (s *Server) watchWaiter(ctx context.Context, sv *service, w *waiter) {
	stop := context.AfterFunc(ctx, func() { w.client.SetReadDeadline(time.Unix(1, 0)) })
	if ctx.Err() != nil {
		w.client.SetReadDeadline(time.Unix(1, 0))
	}
	err := waitReadable(w.client.UnixConn)
	stop()
	w.dead = !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil
	mine := sv.withdraw(w)
	close(w.released)
	if mine {
		if !w.dead {
			w.client.refuse(signal.Errorf(signal.ErrNotFound, "service %q is no longer registered", sv.Name))
		}
		w.client.close()
	}
}

// offer finds a program for a stream that a peer has opened, and serves the two until they end.
func (s *Server) offer(ctx context.Context, sv *service, in *stream.Incoming) {
	base := s.context()
	if base == nil {
		in.Refuse(signal.Errorf(signal.ErrNotRunning, "the node ends"))
		return
	}
	if !s.enter() {
		in.Refuse(signal.Errorf(signal.ErrNotRunning, "the node ends"))
		return
	}
	defer s.work.Done()
	for {
		w, why := sv.next(base, in.Done())
		if why != nil {
			in.Refuse(why)
			return
		}
		if s.hand(base, sv, in, w.client, w.take()) {
			return
		}
	}
}

// hand gives one program the stream; false: the program has gone, try another.
func (s *Server) hand(ctx context.Context, sv *service, in *stream.Incoming, c *client, alive bool) bool {
	defer c.close()
	if !alive {
		return false
	}
	sv.count(1)
	defer sv.count(-1)
	var binding []byte
	if sv.guests {
		binding = in.Binding()
	}
	v, f, ok, err := c.ask(ctx, in, binding)
	switch {
	case !ok:
		return false
	case err != nil:
		in.Refuse(signal.Errorf(signal.ErrInternal, "service %q gave no answer", sv.Name))
	case v.Error != nil || !v.OK:
		if v.Error == nil {
			v.Error = signal.ErrRefused
		}
		in.Refuse(v.Error)
	default:
		s.accepted(ctx, sv, c, in, v, f)
		return true
	}
	if f != nil {
		f.Close()
	}
	return true
}

// ask tells a program of a stream and hears its verdict; ok false: the program has gone. It does so beside, for the stack
// that JSON needs would stay with the stream as long as that lives.
func (c *client) ask(ctx context.Context, in *stream.Incoming, binding []byte) (v app.Verdict, f *os.File, ok bool, err error) {
	done := make(chan struct{})
	go func() { // ends before ask does
		defer close(done)
		if ok = c.say(app.Response{Result: &app.Result{Key: in.Peer().String(), Header: in.Header(), Binding: binding, Packets: in.Packets()}}) == nil; ok {
			f, err = c.hear(ctx, &v)
		}
	}()
	<-done
	return v, f, ok, err
}

// accepted joins an accepted stream.
func (s *Server) accepted(ctx context.Context, sv *service, c *client, in *stream.Incoming, v app.Verdict, f *os.File) {
	if !v.HandOver && f != nil {
		f.Close()
	}
	st, err := accept(in, v.Reply)
	if err == nil {
		st.CountIn(s.apps.tally(c.cred, in.Service()))
		defer s.apps.keep(sv, st)()
	}
	switch {
	case err != nil:
		if v.HandOver && f != nil {
			f.Close()
		}
		in.Refuse(signal.Errorf(signal.ErrInternal, "service %q: %v", in.Service(), err))
		c.refuse(err)
	case v.HandOver:
		defer s.apps.limit(sv, st, v)()
		s.pumpHandedOver(ctx, c, st, f, nil)
	default:
		s.pump(ctx, st, c.UnixConn)
	}
}
