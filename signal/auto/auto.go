// Package auto makes a program an app of viscript by a blank import, as in 2017:
//
//	import _ "skywire/signal/auto"
//
// Started by viscript the program then answers ping, ru and shutdown; started in any other way nothing happens. It
// does not decide what shutdown means: without OnShutdown it sends SIGTERM to its own process, so programs that handle
// SIGTERM need nothing else. Rules: this is the one package of the project that has an init function and package
// state, because the environment and the inherited descriptor belong to the process: it reads both before main, marks
// the descriptor close-on-exec and removes all SIGNAL_* variables, so that no child can pose as its parent.
package auto

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"skywire/signal"
)

const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	dialLimit  = 5 * time.Second
	// answerFirst lets the answer to a shutdown out before the process may be gone.
	answerFirst = 10 * time.Millisecond
)

// self is the process's membership; nil when it was not started by viscript.
var self *member

type member struct {
	id      uint64
	token   string
	address string

	mu       sync.Mutex // guards the fields below
	conn     *signal.Conn
	shutdown func(grace time.Duration)
	ready    bool
	status   string
}

func init() {
	m, inherited := fromEnvironment(os.LookupEnv)
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "SIGNAL_") {
			os.Unsetenv(name)
		}
	}
	if m != nil {
		self = m
		go m.run(context.Background(), inherited) // for the life of the process
	}
}

// fromEnvironment returns nil if nothing there makes the process an app.
func fromEnvironment(look func(string) (string, bool)) (*member, net.Conn) {
	get := func(name string) string { v, _ := look(name); return v }
	m := &member{token: get("SIGNAL_TOKEN"), address: get("SIGNAL_SERVER_ADDRESS")}
	m.id, _ = strconv.ParseUint(get("SIGNAL_CLIENT_ID"), 10, 64)
	var inherited net.Conn
	if fd, err := strconv.Atoi(get("SIGNAL_FD")); err == nil {
		inherited = inherit(fd)
	}
	on, err := strconv.ParseBool(get("SIGNAL_CLIENT"))
	client := on && err == nil && m.address != ""
	if !client {
		m.address = ""
	}
	if inherited == nil && !client {
		return nil, nil
	}
	return m, inherited
}

// run keeps the process connected.
func (m *member) run(ctx context.Context, nc net.Conn) {
	wait := firstRetry
	for ctx.Err() == nil {
		proven := nc != nil // who holds the inherited descriptor is the app
		if nc == nil {
			nc = m.dial(ctx)
		}
		if nc != nil && m.session(ctx, nc, proven) {
			wait = firstRetry
		}
		nc = nil
		if m.address == "" {
			return
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		wait = min(2*wait, lastRetry)
	}
}

func (m *member) dial(ctx context.Context) net.Conn {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	network := "unix"
	if _, _, err := net.SplitHostPort(m.address); err == nil && !filepath.IsAbs(m.address) {
		network = "tcp" // 2017: localhost:7999
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, m.address)
	if err != nil {
		return nil
	}
	return nc
}

// session says hello and answers until the connection ends; it reports whether hello was accepted.
func (m *member) session(ctx context.Context, nc net.Conn, proven bool) bool {
	conn := signal.NewConn(nc, m.handle)
	var wg sync.WaitGroup
	wg.Go(func() { conn.Run(ctx) })
	defer wg.Wait()
	hello, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	params := map[string]any{"proto": []int{1}, "name": filepath.Base(os.Args[0]), "pid": os.Getpid()}
	if m.id != 0 && !proven {
		params["id"], params["token"] = m.id, m.token
	}
	var welcome struct{ ID uint64 }
	if err := conn.Call(hello, "hello", params, &welcome); err != nil {
		conn.Close()
		return false
	}
	m.mu.Lock()
	m.conn = conn
	ready, status := m.ready, m.status
	m.mu.Unlock()
	if status != "" {
		conn.Notify("status", map[string]string{"text": status})
	}
	if ready { // last: who waits for it may look at the status at once
		conn.Notify("ready", nil)
	}
	<-conn.Done()
	m.mu.Lock()
	m.conn = nil
	m.mu.Unlock()
	return true
}

func (m *member) handle(_ context.Context, r *signal.Request) (any, error) {
	r.Drop()
	switch r.Method {
	case "ping":
		return map[string]int{"pid": os.Getpid()}, nil
	case "ru":
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		return map[string]any{
			"heap_bytes": ms.HeapAlloc, "heap_sys_bytes": ms.HeapSys, "stack_bytes": ms.StackInuse,
			"goroutines": runtime.NumGoroutine(), "gc_count": ms.NumGC,
			"gc_cpu": ms.GCCPUFraction, // of all the time that GOMAXPROCS processors have had since the start
		}, nil
	case "shutdown":
		var p struct {
			Grace  int64  `json:"grace_ms"`
			Reason string `json:"reason"`
		}
		if err := r.Bind(&p); err != nil {
			return nil, err
		}
		m.mu.Lock()
		hook := m.shutdown
		m.mu.Unlock()
		if hook == nil && !canTerminate {
			return nil, signal.Errorf(signal.ErrUnsupported, "this system has no SIGTERM")
		}
		time.AfterFunc(answerFirst, func() { // ends the process
			if hook == nil {
				terminateSelf()
				return
			}
			hook(time.Duration(p.Grace) * time.Millisecond)
		})
		return map[string]int{"pid": os.Getpid()}, nil
	}
	return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
}

// OnShutdown sets what a shutdown request does instead of SIGTERM: f runs in its own goroutine and should end the
// program within grace; after that it is killed.
func OnShutdown(f func(grace time.Duration)) {
	if self == nil {
		return
	}
	self.mu.Lock()
	defer self.mu.Unlock()
	self.shutdown = f
}

// Ready tells viscript that the program serves now: its state becomes "ready".
func Ready() {
	if self == nil {
		return
	}
	self.mu.Lock()
	told := self.ready
	self.ready = true
	conn := self.conn
	self.mu.Unlock()
	if conn != nil && !told {
		conn.Notify("ready", nil)
	}
}

// Status tells viscript one line about what the program is doing.
func Status(text string) {
	if self == nil {
		return
	}
	self.mu.Lock()
	self.status = text
	conn := self.conn
	self.mu.Unlock()
	if conn != nil {
		conn.Notify("status", map[string]string{"text": text})
	}
}

// ID returns the sequence id that viscript gave the program, and whether it was started by viscript at all.
func ID() (uint64, bool) {
	if self == nil {
		return 0, false
	}
	return self.id, true
}
