package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// listen opens the sockets, so that a second viscript on the same directory fails before it does anything.
func (s *Supervisor) listen() error {
	var err error
	if s.sock, err = s.listenUnix("control", ControlSocket(s.c.RunDir)); err != nil {
		if errors.Is(err, signal.ErrInUse) {
			return signal.Errorf(signal.ErrRefused, "viscript runs already in %s; to run a second one give it its own --run and --state", s.c.RunDir)
		}
		return err
	}
	if err := s.takeUpChange(); err != nil {
		s.sock.Close()
		return fmt.Errorf("a change of config.yaml that nobody confirmed: %w", err)
	}
	if s.signalSock, err = s.listenUnix("signal", s.signalSocket()); err != nil {
		s.sock.Close()
		return err
	}
	if addr := s.file.Settings.SignalTCP; addr != "" {
		if s.signalTCP = s.handedListener("tcp"); s.signalTCP == nil {
			s.signalTCP, err = listenLoopback(addr)
		}
		if err != nil {
			s.sock.Close()
			s.signalSock.Close()
			return fmt.Errorf("settings.signal_tcp: %w", err)
		}
	}
	return nil
}

// listenUnix takes over the socket that the program before us has left, or opens one.
func (s *Supervisor) listenUnix(name, path string) (net.Listener, error) {
	if l := s.handedListener(name); l != nil {
		again, err := signal.Relisten(l, path)
		if err == nil {
			return again, nil
		}
		l.Close() // its file is gone: nobody could dial it
	}
	return signal.Listen(path, 0o600)
}

// listenLoopback refuses addresses that others on the network reach: the token crosses in the clear.
func listenLoopback(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("%s is no loopback address; use 127.0.0.1:7999", addr)
	}
	return l, nil
}

// serve answers on the sockets until ctx ends.
func (s *Supervisor) serve(ctx context.Context) {
	for _, l := range []net.Listener{s.signalSock, s.signalTCP} {
		if l != nil {
			s.wg.Go(func() {
				if err := s.hub.Serve(ctx, l); err != nil {
					s.log.Error("signal socket failed", "err", err)
				}
			})
		}
	}
	s.wg.Go(func() {
		err := signal.Serve(ctx, s.sock, func(c *signal.Conn) signal.Handler {
			// The mode of the file keeps others out; this also keeps out who got hold of a descriptor.
			if cred, err := c.Peer(); err == nil && cred.UID != 0 && int(cred.UID) != os.Geteuid() {
				s.log.Warn("control connection refused", "uid", cred.UID, "pid", cred.PID)
				return nil
			}
			at := &attachments{}
			go func() { // ends with the connection
				<-c.Done()
				at.leave()
			}()
			who := Caller{Name: "this box", Scope: Admin}
			if cred, err := c.Peer(); err == nil {
				who.Name = fmt.Sprintf("user %d", cred.UID)
			}
			return func(ctx context.Context, r *signal.Request) (any, error) { return s.control(ctx, r, who, at) }
		})
		if err != nil {
			s.log.Error("control socket failed", "err", err)
		}
	})
}

// params are those of all methods of the control socket.
type params struct {
	App     string   `json:"app,omitempty"`
	Args    []string `json:"args,omitempty"`
	ID      string   `json:"id,omitempty"` // 3, name, name#3
	All     bool     `json:"all,omitempty"`
	Attach  bool     `json:"attach,omitempty"`
	Timeout int64    `json:"timeout_ms,omitempty"`
	Lines   *int     `json:"lines,omitempty"`
	First   int      `json:"first,omitempty"` // no more than so many from cursor on
	Follow  bool     `json:"follow,omitempty"`
	Cursor  *uint64  `json:"cursor,omitempty"` // the number of the first line wanted
	Since   string   `json:"since,omitempty"`  // RFC 3339
	Level   string   `json:"level,omitempty"`
	DryRun  bool     `json:"dry_run,omitempty"`
	Data    []byte   `json:"data,omitempty"`
	Signal  string   `json:"signal,omitempty"`
	Text    string   `json:"text,omitempty"`              // a config.yaml
	Within  int64    `json:"confirm_within_ms,omitempty"` // 0: at once for good
	Columns uint16   `json:"columns,omitempty"`
	Rows    uint16   `json:"rows,omitempty"`
	Version int      `json:"version,omitempty"` // 0: the one before
}

// control answers one request.
func (s *Supervisor) control(ctx context.Context, r *signal.Request, who Caller, at *attachments) (any, error) {
	r.Drop()
	var p params
	if err := r.Bind(&p); err != nil {
		return nil, err
	}
	err := s.admit(ctx, who, r.Method, p)
	if err != nil {
		s.audit(who, r.Method, p, err)
		return nil, err
	}
	answer, err := s.answer(ctx, r, p, who, at)
	s.audit(who, r.Method, p, err)
	return answer, err
}

// answer does what is asked: the table of what viscript can be asked.
func (s *Supervisor) answer(ctx context.Context, r *signal.Request, p params, who Caller, at *attachments) (any, error) {
	switch r.Method {
	case "viscript.describe":
		return s.describe(), nil
	case "viscript.status":
		return s.Status(ctx)
	case "viscript.apps":
		return s.Apps(ctx)
	case "viscript.help":
		return s.Help(ctx, p.App)
	case "viscript.start":
		return s.controlStart(ctx, r, p, at)
	case "viscript.ps":
		return s.List(ctx, p.All)
	case "viscript.ping":
		return s.Ping(ctx, p.ID)
	case "viscript.ru":
		return s.Usage(ctx, p.ID)
	case "viscript.top":
		return s.Top(ctx)
	case "viscript.metrics":
		return s.Metrics(ctx)
	case "viscript.stop":
		return s.Stop(ctx, p.ID, time.Duration(p.Timeout)*time.Millisecond)
	case "viscript.restart":
		return s.Restart(ctx, p.ID)
	case "viscript.logs":
		return s.controlLogs(ctx, r, p)
	case "viscript.events":
		return s.controlEvents(ctx, r, p)
	case "viscript.reload":
		return s.Reload(ctx, p.DryRun)
	case "viscript.apply":
		return s.Apply(ctx, []byte(p.Text), time.Duration(p.Within)*time.Millisecond, p.DryRun, who.Name)
	case "viscript.confirm":
		return s.Confirm(ctx)
	case "viscript.rollback":
		return s.Rollback(ctx, p.Version)
	case "viscript.versions":
		return s.Versions()
	case "viscript.audit":
		return follow(ctx, r, s.trail, p, withNumber)
	case "viscript.web":
		return s.invite()
	case "viscript.upgrade":
		return s.Upgrade(ctx)
	case "viscript.attach":
		return s.controlAttach(ctx, r, p, at)
	case "viscript.input":
		return nil, s.input(ctx, p)
	case "viscript.resize":
		return nil, s.resize(ctx, p)
	case "viscript.signal":
		return nil, s.signalApp(ctx, p)
	}
	return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
}

// Started answers viscript.start.
type Started struct {
	ID  uint64 `json:"id"`
	TTY bool   `json:"tty,omitempty"` // it has a terminal: keys are for it, whole lines are not waited for
}

func (s *Supervisor) controlStart(ctx context.Context, r *signal.Request, p params, at *attachments) (any, error) {
	if !p.Attach {
		id, err := s.Start(ctx, p.App, p.Args, nil)
		return Started{ID: id}, err
	}
	sub := NewSubscriber()
	id, err := s.Start(ctx, p.App, p.Args, sub)
	if err != nil {
		return nil, err
	}
	s.stream(r.Conn, id, sub, at)
	return s.startedAs(ctx, id), nil
}

func (s *Supervisor) controlAttach(ctx context.Context, r *signal.Request, p params, at *attachments) (any, error) {
	sub := NewSubscriber()
	id, err := s.Attach(ctx, p.ID, sub)
	if err != nil {
		return nil, err
	}
	s.stream(r.Conn, id, sub, at)
	return s.startedAs(ctx, id), nil
}

// startedAs is the answer to whom attaches.
func (s *Supervisor) startedAs(ctx context.Context, id uint64) Started {
	out := Started{ID: id}
	s.do(ctx, func() error {
		if e := s.table[id]; e != nil {
			out.TTY = e.app.TTY
		}
		return nil
	})
	return out
}

// Output is a notification to an attached client: raw output, or the end of the app.
type Output struct {
	ID     uint64 `json:"id"`
	Stream string `json:"stream,omitempty"`
	Data   []byte `json:"data,omitempty"`
	Ended  *Item  `json:"ended,omitempty"`
}

// stream sends raw output to an attached client until either ends. It begins in the loop, before whose end nobody waits for
// what was begun.
func (s *Supervisor) stream(c *signal.Conn, id uint64, sub *Subscriber, at *attachments) {
	at.add(sub)
	err := s.do(s.ctx, func() error {
		e := s.table[id]
		if e == nil {
			return signal.ErrNotFound
		}
		t := e.out.tap
		s.wg.Go(func() { s.sendOutput(c, id, sub, t) })
		return nil
	})
	if err != nil {
		sub.Leave()
	}
}

func (s *Supervisor) sendOutput(c *signal.Conn, id uint64, sub *Subscriber, t *tap) {
	defer sub.Leave()
	send := func(k Chunk) bool {
		return c.Notify("viscript.output", Output{ID: id, Stream: k.Stream, Data: k.Data}) == nil
	}
	for {
		select {
		case k := <-sub.C:
			if !send(k) {
				return
			}
		case <-sub.Done:
			return
		case <-s.ctx.Done():
			return
		case <-t.over:
			for {
				select {
				case k := <-sub.C:
					if !send(k) {
						return
					}
					continue
				default:
				}
				break
			}
			item := Item{ID: id, State: Exited}
			if list, err := s.items(s.ctx, func(e *entry) bool { return e.id == id }); err == nil && len(list) == 1 {
				item = list[0]
			}
			c.Notify("viscript.output", Output{ID: id, Ended: &item})
			return
		}
	}
}

func (s *Supervisor) input(ctx context.Context, p params) error {
	run, err := s.runningOf(ctx, p.ID)
	if err != nil {
		return err
	}
	in := run.Input()
	if in == nil {
		return signal.Errorf(signal.ErrRefused, "%s reads no input", p.ID)
	}
	if len(p.Data) == 0 { // the end of the input
		return in.Close()
	}
	if d, ok := in.(interface{ SetWriteDeadline(time.Time) error }); ok {
		if at, ok := ctx.Deadline(); ok {
			d.SetWriteDeadline(at)
		}
	}
	_, err = in.Write(p.Data)
	return err
}

// resize tells an app with a terminal how large that of the person is.
func (s *Supervisor) resize(ctx context.Context, p params) error {
	run, err := s.runningOf(ctx, p.ID)
	if err != nil {
		return err
	}
	r, ok := run.(*process)
	if !ok || !r.tty {
		return signal.Errorf(signal.ErrRefused, "%s has no terminal (tty: true in config.yaml)", p.ID)
	}
	return proc.ResizeTTY(r.input, p.Columns, p.Rows)
}

func (s *Supervisor) signalApp(ctx context.Context, p params) error {
	run, err := s.runningOf(ctx, p.ID)
	if err != nil {
		return err
	}
	sig, ok := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[p.Signal]
	if !ok {
		return signal.Errorf(signal.ErrUsage, "signal %q: INT, TERM and HUP can be sent", p.Signal)
	}
	return run.Signal(sig)
}

// maxReply is how many bytes of lines go into one answer or notification, well below a line of signal.
const maxReply = 256 << 10

func (s *Supervisor) controlLogs(ctx context.Context, r *signal.Request, p params) (any, error) {
	var ring *Ring
	err := s.do(ctx, func() error {
		e, err := s.find(p.ID)
		if err == nil {
			ring = e.out.ring
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return follow(ctx, r, ring, p, func(l Line) any { return l })
}

func (s *Supervisor) controlEvents(ctx context.Context, r *signal.Request, p params) (any, error) {
	return follow(ctx, r, s.bus, p, withNumber)
}

// withNumber is a line of JSON with its number.
func withNumber(l Line) any {
	return json.RawMessage(fmt.Sprintf(`{"seq":%d,%s`, l.Seq, strings.TrimPrefix(l.Text, "{")))
}

// filter leaves out the lines that were not asked for.
func (p params) filter() (func([]Line) []Line, error) {
	var since time.Time
	if p.Since != "" {
		var err error
		if since, err = time.Parse(time.RFC3339Nano, p.Since); err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "since: %v", err)
		}
	}
	least, known := ParseLevel(p.Level)
	if p.Level != "" && !known {
		return nil, signal.Errorf(signal.ErrUsage, "level %q: debug, info, warn or error", p.Level)
	}
	return func(lines []Line) []Line {
		return slices.DeleteFunc(lines, func(l Line) bool {
			return l.Time.Before(since) || p.Level != "" && l.Stream != streamNote && LevelOf(l.Text) < least
		})
	}, nil
}

// follow answers the last lines, or sends them and all that come as notifications until the caller gives up.
func follow(ctx context.Context, r *signal.Request, ring *Ring, p params, show func(Line) any) (any, error) {
	filter, err := p.filter()
	if err != nil {
		return nil, err
	}
	n := -1
	if p.Lines != nil {
		n = *p.Lines
	}
	from := uint64(0)
	if p.Cursor != nil {
		from = *p.Cursor
	}
	lines, cursor := ring.From(from, p.First)
	if lines = filter(lines); n >= 0 {
		lines = lines[max(0, len(lines)-n):]
	}
	switch {
	case p.Follow:
	case p.Cursor != nil: // who goes on from the last of them misses none
		return render(lines[:fits(lines)], show), nil
	default:
		return render(newest(lines), show), nil
	}
	for {
		for part := range slices.Chunk(lines, 200) {
			for len(part) > 0 {
				k := fits(part)
				if err := r.Conn.Notify("viscript.lines", render(part[:k], show)); err != nil {
					return nil, err
				}
				part = part[k:]
			}
		}
		if lines, cursor, err = ring.After(ctx, cursor); err != nil {
			return nil, err
		}
		lines = filter(lines)
	}
}

// fits returns how many lines from the front go into one notification, at least one.
func fits(lines []Line) int {
	size := 0
	for i, l := range lines {
		if size += 2*len(l.Text) + 128; size > maxReply && i > 0 {
			return i
		}
	}
	return len(lines)
}

// newest drops what would not fit into one answer from the front.
func newest(lines []Line) []Line {
	size := 0
	for i := range slices.Backward(lines) {
		if size += 2*len(lines[i].Text) + 128; size > maxReply {
			return lines[i+1:]
		}
	}
	return lines
}

func render(lines []Line, show func(Line) any) []any {
	out := make([]any, len(lines))
	for i, l := range lines {
		out[i] = show(l)
	}
	return out
}

// Invited answers viscript.web.
type Invited struct {
	Address string `json:"address"` // opens the page once
}

func (s *Supervisor) invite() (Invited, error) {
	if s.c.Page == nil {
		return Invited{}, signal.Errorf(signal.ErrUnsupported, "no web page: viscript runs headless, or this build has none; manage this box from another one by viscript -n")
	}
	a, err := s.c.Page.Invite()
	return Invited{a}, err
}
