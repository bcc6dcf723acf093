package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
)

// Config is what New needs.
type Config struct {
	Path    string // of the socket; see app.SocketName
	Node    Node
	Streams Streams
	// AppUIDs may register apps and attach TUNs, beside root and the node's own user.
	AppUIDs []uint32
	Log     *slog.Logger // nil: silent
}

// Server answers at the node's socket.
type Server struct {
	path    string
	node    Node
	streams Streams
	log     *slog.Logger
	self    uint32 // our uid
	appUIDs []uint32
	methods map[string]method
	apps    *registry
	benches atomic.Int64
	running atomic.Bool
	up      chan struct{} // closed when the socket is there
	work    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	base    context.Context
	closing bool
	conns   int
	perUID  map[uint32]int
}

// New returns a Server; nothing happens before Run.
func New(c Config) (*Server, error) {
	if c.Path == "" || c.Node == nil || c.Streams == nil {
		return nil, errors.New("api: path, node and streams are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		path: c.Path, node: c.Node, streams: c.Streams, log: c.Log,
		self: uint32(os.Geteuid()), appUIDs: slices.Clone(c.AppUIDs),
		up: make(chan struct{}), perUID: map[uint32]int{},
	}
	s.apps = newRegistry(c.Streams, s.offer, c.Node)
	s.methods = s.table()
	return s, nil
}

// Services are what the apps of this box offer now, for the node's record.
func (s *Server) Services() []app.Service { return s.apps.services() }

// Changed closes at the next change of Services.
func (s *Server) Changed() <-chan struct{} { return s.apps.changes() }

// Up closes when the socket is there to be dialled.
func (s *Server) Up() <-chan struct{} { return s.up }

// Run listens until ctx ends, and returns after every connection has ended. It runs once.
func (s *Server) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return errors.New("api: Run called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.base = ctx
	s.mu.Unlock()
	defer func() {
		cancel()
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		s.work.Wait()
	}()
	remove, err := s.streams.Handle(benchService, s.benchHandler()) // before anybody can ask for it
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	defer remove()
	ln, err := signal.Listen(s.path, 0o660)
	if err != nil {
		return err
	}
	close(s.up)
	defer ln.Close() // also waits for the one below to have removed the file
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	s.begin(func() { s.watchMembers(ctx) })
	return s.accept(ctx, ln)
}

func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err != nil {
			var ne net.Error
			if ctx.Err() != nil {
				return nil
			}
			if !errors.As(err, &ne) || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", s.path, err)
			}
			s.log.Warn("accept", "err", err) // no descriptors left: that passes
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		c, ok := s.admit(nc)
		if !ok {
			nc.Close()
			continue
		}
		if !s.begin(func() { s.serve(ctx, c) }) {
			c.close()
		}
	}
}

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

// begin runs f in a goroutine that Run waits for; false: too late, or too early.
func (s *Server) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.base == nil {
		return false
	}
	s.work.Go(f)
	return true
}

// enter has Run wait for the goroutine of another, until it calls work.Done; false as for begin.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.base == nil {
		return false
	}
	s.work.Add(1)
	return true
}

// context is Run's; nil outside of it.
func (s *Server) context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil
	}
	return s.base
}

// client is one connection of a program.
type client struct {
	*net.UnixConn
	cred  signal.Cred
	known bool // the kernel told who it is
	once  sync.Once
	free  func()
}

// admit counts a connection in.
func (s *Server) admit(nc net.Conn) (*client, bool) {
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		return nil, false
	}
	cred, err := signal.PeerCred(conn)
	c := &client{UnixConn: conn, cred: cred, known: err == nil}
	s.mu.Lock()
	defer s.mu.Unlock()
	trusted := c.known && (cred.UID == 0 || cred.UID == s.self)
	if s.conns >= maxConns || s.perUID[cred.UID] >= maxPerUID && !trusted {
		return nil, false // a flood costs its sender, not us
	}
	s.conns++
	s.perUID[cred.UID]++
	c.free = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conns--
		if s.perUID[cred.UID]--; s.perUID[cred.UID] == 0 {
			delete(s.perUID, cred.UID)
		}
	}
	return c, true
}

func (c *client) close() {
	c.once.Do(func() {
		c.Close()
		c.free()
	})
}

// serve finds out by the first line what a connection is: a stream or JSON-RPC.
func (s *Server) serve(ctx context.Context, c *client) {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	c.SetReadDeadline(time.Now().Add(firstLine))
	if ctx.Err() != nil {
		c.close()
		return
	}
	line, files, err := signal.ReadLine(c.UnixConn, signal.MaxLine)
	if !stop() || err != nil {
		closeAll(files)
		c.close()
		return
	}
	c.SetReadDeadline(time.Time{})
	var first app.Request
	json.Unmarshal(line, &first) // what is no stream's line is for signal.Conn to judge
	switch first.Method {
	case "stream.dial", "stream.accept":
		closeAll(files)
		s.serveStream(ctx, c, line)
	default:
		defer c.close()
		s.serveControl(ctx, c, line, files)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// serveControl answers JSON-RPC until the program leaves, and with it what it has registered.
func (s *Server) serveControl(ctx context.Context, c *client, line []byte, files []*os.File) {
	ct := &control{client: c}
	conn := signal.NewConnAfter(c.UnixConn, func(ctx context.Context, r *signal.Request) (any, error) {
		return s.answer(ctx, ct, r)
	}, line, files)
	defer s.apps.leave(conn)
	if err := conn.Run(ctx); err != nil {
		s.log.Debug("control connection", "pid", c.cred.PID, "err", err)
	}
}
