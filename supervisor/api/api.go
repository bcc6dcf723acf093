//go:build web || !(mips || mipsle || mini)

// Package api serves the web page of a viscript and what the page asks: methods of signal, and lines as they come.
//
// It knows no method by heart: a call is handed to the box that it names, with the scope that the page has there. It is
// the only importer of net/http in viscript. Rules: it listens on loopback or on a unix socket alone; Host and Origin are
// compared with exact lists, so that no name that resolves to us (DNS rebinding) and no other page gets an answer; whoever
// wants more than the page itself shows a session, and for a call the session's second token in a header, which no form
// and no foreign page can send. There is no password: a link with a token for one use comes from the control socket.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"skywire/signal"
)

// Limits of what a browser may cost.
const (
	maxBody    = 1 << 20
	maxHead    = 16 << 10
	maxStreams = 64 // open at once
	callTime   = 30 * time.Second
	headTime   = 5 * time.Second
	beatEvery  = 25 * time.Second // a comment in a silent stream, so that ways in between keep it
)

// Config is what a Server is made of.
type Config struct {
	Listen string // host:port of loopback, or unix:PATH
	Page   fs.FS  // what is served as it is; index.html is the page
	// Dial connects to the viscript of a box, "" for this one. The Server closes what it gets.
	Dial func(ctx context.Context, node string) (io.ReadWriteCloser, error)
	// Node asks the node of this box; it says itself which methods a page may call.
	Node func(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error)
	// Boxes are the keys of boxes that let this one operate them.
	Boxes func(ctx context.Context) ([]string, error)
	// Metrics is served to everybody on this machine; nil: nobody.
	Metrics func(ctx context.Context) (string, error)
	Log     *slog.Logger
}

// Server is the page of one viscript.
type Server struct {
	c       Config
	l       net.Listener
	gate    gate
	streams chan struct{}

	mu    sync.Mutex              // guards what follows
	conns map[string]*signal.Conn // to viscripts, by node
}

// New listens. Run serves.
func New(c Config) (*Server, error) {
	s := &Server{c: c, streams: make(chan struct{}, maxStreams), conns: map[string]*signal.Conn{}, gate: newGate(time.Now)}
	if path, ok := strings.CutPrefix(c.Listen, "unix:"); ok {
		l, err := signal.Listen(path, 0o600)
		s.l, s.gate.hosts = l, []string{"localhost"}
		return s, err
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("web page: %q is no address of loopback such as 127.0.0.1:7668; from another machine come by ssh -L or viscript -n", c.Listen)
	}
	if s.l, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, fmt.Errorf("web page: %w", err)
	}
	_, port, _ := net.SplitHostPort(s.l.Addr().String())
	for _, h := range []string{"127.0.0.1", "localhost", "[::1]"} {
		s.gate.hosts = append(s.gate.hosts, h+":"+port)
	}
	if port == "80" {
		s.gate.hosts = append(s.gate.hosts, "127.0.0.1", "localhost", "[::1]")
	}
	return s, nil
}

// Address is where the page is, for people.
func (s *Server) Address() string {
	if s.l.Addr().Network() == "unix" {
		return "unix:" + s.l.Addr().String()
	}
	return "http://" + s.l.Addr().String() + "/"
}

// Invite returns an address that opens the page once, within the next minutes.
func (s *Server) Invite() string { return s.Address() + "#" + s.gate.invite() }

// Run serves until ctx ends and returns when every request has ended.
func (s *Server) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /call", s.call)
	mux.HandleFunc("GET /stream", s.stream)
	if s.c.Metrics != nil {
		mux.HandleFunc("GET /metrics", s.metrics)
	}
	mux.Handle("GET /", http.FileServerFS(s.c.Page))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &http.Server{
		Handler: s.guard(mux), ReadHeaderTimeout: headTime, ReadTimeout: callTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHead,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.c.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(s.l) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		cancel()
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		if h.Shutdown(end) != nil {
			h.Close()
		}
		<-served
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	return err
}

// guard lets nobody in who came by another name or from another page.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !slices.Contains(s.gate.hosts, r.Host) {
			refuse(w, http.StatusForbidden, "this name is not ours; open "+s.Address())
			return
		}
		if o := r.Header.Get("Origin"); o != "" && o != "http://"+r.Host {
			refuse(w, http.StatusForbidden, "another page may not ask here")
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" && r.URL.Path != "/" {
			refuse(w, http.StatusForbidden, "another page may not ask here")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, status int, text string) {
	answer(w, status, map[string]any{"error": map[string]string{"name": "refused", "message": text}})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // who does not read his answer has none
}

// login takes the token of an invitation and begins a session.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var p struct {
		Token string `json:"token"`
	}
	if !body(w, r, &p) {
		return
	}
	session, second, err := s.gate.enter(p.Token)
	if err != nil {
		s.c.Log.Warn("web page: login refused", "err", err)
		refuse(w, http.StatusUnauthorized, err.Error())
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	answer(w, http.StatusOK, map[string]string{"token": second})
}

// body reads the JSON of a request.
func body(w http.ResponseWriter, r *http.Request, into any) bool {
	if t := r.Header.Get("Content-Type"); t != "application/json" { // no form can send it
		refuse(w, http.StatusUnsupportedMediaType, "send application/json")
		return false
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": signal.Errorf(signal.ErrParse, "%v", err)})
		return false
	}
	return true
}

// call hands one call on.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	if !s.gate.admits(r, true) {
		refuse(w, http.StatusUnauthorized, "not logged in: viscript web prints a new address")
		return
	}
	var p struct {
		Node   string          `json:"node"`
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	if !body(w, r, &p) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	result, err := s.ask(ctx, p.Node, p.Method, p.Params)
	if err != nil {
		e := signal.AsError(err)
		answer(w, http.StatusOK, map[string]any{"error": e})
		return
	}
	answer(w, http.StatusOK, map[string]any{"result": result})
}

func (s *Server) ask(ctx context.Context, node, method string, params json.RawMessage) (json.RawMessage, error) {
	switch {
	case method == "boxes":
		keys, err := s.c.Boxes(ctx)
		if err != nil {
			return nil, err
		}
		return json.Marshal(keys)
	case strings.HasPrefix(method, "node.") && node == "":
		return s.c.Node(ctx, method, params)
	case !strings.HasPrefix(method, "viscript."):
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", method)
	}
	c, err := s.connect(ctx, node)
	if err != nil {
		return nil, err
	}
	var result json.RawMessage
	err = c.Call(ctx, method, params, &result)
	return result, err
}

// connect returns the connection to a box that all calls share.
func (s *Server) connect(ctx context.Context, node string) (*signal.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[node]; c != nil {
		select {
		case <-c.Done():
		default:
			return c, nil
		}
	}
	rw, err := s.c.Dial(ctx, node)
	if err != nil {
		return nil, err
	}
	c := signal.NewConn(rw, nil)
	go c.Run(context.WithoutCancel(ctx)) //nolint:errcheck // ends with Close or with the peer
	s.conns[node] = c
	return c, nil
}

// stream sends lines as they come, as server-sent events with the cursor to go on from as their id.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	if !s.gate.admits(r, false) {
		refuse(w, http.StatusUnauthorized, "not logged in: viscript web prints a new address")
		return
	}
	q := r.URL.Query()
	method := q.Get("method")
	if !slices.Contains([]string{"viscript.logs", "viscript.events", "viscript.audit"}, method) {
		refuse(w, http.StatusNotFound, "no stream of that name")
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		refuse(w, http.StatusTooManyRequests, "too many streams are open")
		return
	}
	params := map[string]any{"follow": true, "lines": 200}
	if id := q.Get("id"); id != "" {
		params["id"] = id
	}
	if at := r.Header.Get("Last-Event-ID"); at != "" { // the browser comes back
		params["cursor"], params["lines"] = json.Number(at), -1
	}
	if err := s.follow(r.Context(), w, q.Get("node"), method, params); err != nil && r.Context().Err() == nil {
		b, _ := json.Marshal(signal.AsError(err))
		fmt.Fprintf(w, "event: failed\ndata: %s\n\n", b)
	}
}

func (s *Server) follow(ctx context.Context, w http.ResponseWriter, node, method string, params any) error {
	rc := http.NewResponseController(w)
	if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rw, err := s.c.Dial(ctx, node)
	if err != nil {
		return err
	}
	lines := make(chan json.RawMessage, 64)
	c := signal.NewConn(rw, func(ctx context.Context, q *signal.Request) (any, error) {
		select {
		case lines <- slices.Clone(q.Params): // full: the connection waits, and so does viscript
		case <-ctx.Done():
		}
		return nil, nil
	})
	go c.Run(ctx) //nolint:errcheck // ends with Close or with the peer
	defer c.Close()
	ended := make(chan error, 1)
	go func() { ended <- c.Call(ctx, method, params, nil) }()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	if err := rc.Flush(); err != nil {
		return err
	}
	for {
		select {
		case b := <-lines:
			if err := events(w, b); err != nil {
				return err
			}
		case <-beat.C:
			if _, err := io.WriteString(w, ":\n\n"); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := rc.Flush(); err != nil {
			return err
		}
	}
}

// events writes one event a line.
func events(w io.Writer, list json.RawMessage) error {
	var all []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil {
		return err
	}
	for _, b := range all {
		var at struct {
			Seq uint64 `json:"seq"`
		}
		if err := json.Unmarshal(b, &at); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", at.Seq+1, b); err != nil { // JSON has no line breaks
			return err
		}
	}
	return nil
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	text, err := s.c.Metrics(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	io.WriteString(w, text) //nolint:errcheck // who does not read his answer has none
}
