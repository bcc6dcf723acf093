package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/node/api"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

func one(t testing.TB) *box { return newBox(t, streamtest.New(1, streamtest.Conditions{}), 1) }

func TestMethods(t *testing.T) {
	t.Parallel()
	b := one(t)
	c := b.client(t)
	me := b.key.String()
	for _, tc := range []struct {
		method string
		params any
		want   string // in the result, or the name of the error
	}{
		{"node.id", nil, `"key":"` + me + `"`},
		{"node.status", nil, `"relayed_bytes":0`},
		{"node.peers", nil, `[]`},
		{"node.paths", nil, `[]`},
		{"node.routes", nil, `[]`},
		{"node.records", nil, `[]`},
		{"node.services", map[string]string{"type": "vpn"}, `"type":"vpn"`},
		{"node.services", map[string]any{"own": true}, `[]`},
		{"node.resolve", map[string]string{"name": "me"}, me},
		{"node.resolve", map[string]string{"name": me}, me},
		{"node.resolve", map[string]string{"name": "nobody"}, "not_found"},
		{"node.resolve", map[string]string{"nmae": "me"}, "usage"},
		{"node.ping", map[string]string{"key": "me"}, `"rtt_ms":1.5`},
		{"node.trace", map[string]string{"key": "me"}, `"hops":[{`},
		{"node.why", map[string]string{"key": "me"}, me},
		{"node.ping", nil, "usage"},
		{"app.list", nil, `[]`},
		{"app.status", map[string]string{}, "usage"},
		{"app.call", map[string]string{"app": "x", "method": "y"}, "not_found"},
		{"app.register", map[string]any{"name": "a b", "kind": "x"}, "usage"},
		{"app.register", map[string]any{"name": "a", "kind": "x", "services": []any{map[string]any{"name": "bench", "type": "x"}}}, "usage"},
		{"app.register", map[string]any{"name": "a", "kind": "x", "services": []any{map[string]any{"name": "s", "type": "x", "allow": []string{"what"}}}}, "usage"},
		{"tun.attach", map[string]any{"device": "tun0", "mtu": 1400}, "usage"},
		{"tun.detach", map[string]any{"device": "tun0"}, "internal"},
		{"tun.policy", map[string]any{"routes": []any{map[string]any{"prefix": "10.0.0.1/8", "key": me}}}, "usage"},
		{"record.put", map[string]any{"record": []byte("x")}, "{}"},
		{"paths.propose", map[string]any{"to": me, "paths": [][]string{{me}}}, "{}"},
		{"no.such", nil, "unknown_method"},
	} {
		var raw json.RawMessage
		err := c.Call(t.Context(), tc.method, tc.params, &raw)
		got := string(raw)
		var e *signal.Error
		if errors.As(err, &e) {
			got = e.Name
		} else if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s %v: got %s (%v), want %s", tc.method, tc.params, got, err, tc.want)
		}
	}
}

func TestClientInfo(t *testing.T) {
	t.Parallel()
	b := one(t)
	c := b.client(t)
	want := b.node.Info()
	if got := c.Self(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if d, err := c.Ping(t.Context(), b.key); d != 1500*time.Microsecond || err != nil {
		t.Errorf("ping %v, %v", d, err)
	}
	if _, err := app.Dial(t.Context(), filepath.Join(b.run, "elsewhere")); !errors.Is(err, app.ErrNotRunning) {
		t.Errorf("no node: %v", err)
	}
	files, err := c.Sockets(t.Context())
	if err != nil || len(files) != 2 {
		t.Fatalf("%d sockets, %v", len(files), err)
	}
	for _, f := range files {
		if pc, err := net.FilePacketConn(f); err != nil {
			t.Errorf("socket: %v", err)
		} else {
			pc.Close()
		}
		f.Close()
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	b := one(t)
	c1, c2 := b.client(t), b.client(t)
	changed := b.server.Changed()
	offer(t, c1, "s1", "s2")
	select {
	case <-changed:
	default:
		t.Error("no change told")
	}
	if got := b.server.Services(); len(got) != 2 || got[0].Name != "s1" {
		t.Errorf("services %+v", got)
	}
	same := app.Registration{Name: "test", Kind: "x"}
	if err := c2.Register(t.Context(), same); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("the same app twice: %v", err)
	}
	clash := app.Registration{Name: "other", Kind: "x", Services: []app.Service{{Name: "s1", Type: "x"}}}
	if err := c2.Register(t.Context(), clash); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("the same service twice: %v", err)
	}
	offer(t, c1, "s3") // the same connection replaces
	if got := b.server.Services(); len(got) != 1 || got[0].Name != "s3" {
		t.Errorf("services %+v", got)
	}
	c1.OnCall(func(_ context.Context, method string, params json.RawMessage) (any, error) {
		if method == "vpn.status" {
			return map[string]json.RawMessage{"you said": params}, nil
		}
		return nil, signal.Errorf(signal.ErrUnknownMethod, "%s", method)
	})
	if err := c1.Status(map[string]int{"clients": 3}); err != nil {
		t.Fatal(err)
	}
	var answer map[string]string
	call := app.CallParams{App: "test", Method: "vpn.status", Params: json.RawMessage(`"hello"`)}
	if err := c2.Call(t.Context(), "app.call", call, &answer); err != nil || answer["you said"] != "hello" {
		t.Errorf("call: %v, %v", answer, err)
	}
	call.Method = "x"
	if err := c2.Call(t.Context(), "app.call", call, nil); !errors.Is(err, signal.ErrUnknownMethod) {
		t.Errorf("unknown method of an app: %v", err)
	}
	var list []api.App
	if err := c2.Call(t.Context(), "app.list", nil, &list); err != nil || len(list) != 1 || string(list[0].Status) != `{"clients":3}` || list[0].PID != os.Getpid() {
		t.Errorf("list: %+v, %v", list, err)
	}
	c1.Close()
	eventually(t, "the app is gone", func() bool { return len(b.server.Services()) == 0 })
	if err := c2.Register(t.Context(), clash); err != nil {
		t.Errorf("the freed name: %v", err)
	}
}

func TestPolicyAndTUN(t *testing.T) {
	t.Parallel()
	b := one(t)
	c := b.client(t)
	p := app.Policy{Routes: []app.Rule{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Key: b.key}}}
	if err := c.SetPolicy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	b.node.mu.Lock()
	if len(b.node.policy.Routes) != 1 || b.node.policy.Routes[0] != p.Routes[0] {
		t.Errorf("policy %+v", b.node.policy)
	}
	b.node.mu.Unlock()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := c.AttachTUN(t.Context(), []*os.File{null}, "tun0", 1400); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("/dev/null as a TUN: %v", err)
	}
}

// TestNodeRestart: registration, policy and status are told again, waiting Accepts go on.
func TestNodeRestart(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server := b.client(t)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := server.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer work.Wait()
	defer cancel()
	offer(t, server, "echo")
	p := app.Policy{Serve: []app.Rule{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Key: a.key}}}
	if err := server.SetPolicy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := server.Status("fine"); err != nil {
		t.Fatal(err)
	}
	serveEcho(t, server, "echo")
	b.stopAPI()
	b.node.mu.Lock()
	b.node.policy = app.Policy{}
	b.node.mu.Unlock()
	if err := server.Call(t.Context(), "node.id", nil, nil); !errors.Is(err, app.ErrNotRunning) {
		t.Errorf("call to a dead node: %v", err)
	}
	b.start()
	eventually(t, "the service is back", func() bool { return len(b.server.Services()) == 1 })
	eventually(t, "the policy is back", func() bool {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		return len(b.node.policy.Serve) == 1
	})
	client := a.client(t)
	s, err := client.Dial(t.Context(), b.key, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	io.WriteString(s, "again")
	s.CloseWrite()
	if got, err := io.ReadAll(s); string(got) != "again" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBench(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	c := a.client(t)
	var r api.BenchResult
	if err := c.Call(t.Context(), "node.bench", api.BenchParams{Key: b.key.String(), Seconds: 0.2}, &r); err != nil {
		t.Fatal(err)
	}
	if r.SendMbit <= 0 || r.ReceiveMbit <= 0 || r.SendBytes == 0 || r.ReceiveBytes == 0 {
		t.Errorf("%+v", r)
	}
	b.node.mu.Lock()
	b.node.strange[a.key] = true
	b.node.mu.Unlock()
	if err := c.Call(t.Context(), "node.bench", api.BenchParams{Key: b.key.String(), Seconds: 0.2}, &r); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("bench by a stranger: %v", err)
	}
}

// TestHostileFirstLines: whatever a program sends first, the server lives and answers the next.
func TestHostileFirstLines(t *testing.T) {
	t.Parallel()
	b := one(t)
	for _, line := range []string{
		"", "\n", "x\n", "{}\n", "[]\n", "null\n", `{"method":"stream.dial"}` + "\n", `{"method":"stream.accept"}` + "\n",
		`{"method":"stream.dial","params":{"key":"x","service":"y","header":"!!"}}` + "\n",
		`{"method":"stream.dial","params":[]}` + "\n", `{"method":7}` + "\n", "GET / HTTP/1.1\r\n\r\n",
		`{"method":"stream.dial","params":{"service":"` + strings.Repeat("s", 100000) + `"}}` + "\n",
		strings.Repeat("a", 2<<20), `{"jsonrpc":"2.0","id":1,"method":"tun.attach","params":{"device":"\u0000"}}` + "\n",
	} {
		c, err := net.Dial("unix", filepath.Join(b.run, app.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, line)
		c.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
	if err := b.client(t).Call(t.Context(), "node.id", nil, nil); err != nil {
		t.Error(err)
	}
}

// TestAccess runs the checks for another user, which needs root to become one.
func TestAccess(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become someone else")
	}
	b := one(t)
	os.Chmod(b.run, 0o755)
	os.Chmod(filepath.Join(b.run, app.SocketName), 0o666)
	script := `
import os, sys, json, socket
os.setuid(65534)
def ask(line):
    s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]); s.sendall(json.dumps(line).encode() + b"\n")
    return s.makefile().readline()
for m in sys.argv[2:]:
    if m.startswith("stream."): r = ask({"method": m, "params": {"service": "mine"}})
    else: r = ask({"jsonrpc": "2.0", "id": 1, "method": m, "params": {"name": "x", "kind": "x"}})
    print(m, json.loads(r).get("error", {}).get("name"))
`
	offer(t, b.client(t), "mine")
	out := pythonScript(t, script, filepath.Join(b.run, app.SocketName),
		"node.id", "app.list", "app.register", "tun.attach", "app.call", "carrier.sockets", "stream.accept")
	want := "node.id None\napp.list None\napp.register refused\ntun.attach refused\napp.call refused\ncarrier.sockets refused\nstream.accept refused\n"
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestSocketRemoved empties the run folder under a node: commands reach it again, and who was connected stays so.
func TestSocketRemoved(t *testing.T) {
	t.Parallel()
	b := one(t)
	before := b.client(t)
	for range 2 {
		if err := os.Remove(filepath.Join(b.run, app.SocketName)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a command reaches the node", func() bool {
			c, err := app.Dial(t.Context(), b.run)
			if err != nil {
				return false
			}
			defer c.Close()
			return c.Call(t.Context(), "node.status", nil, nil) == nil
		})
	}
	if err := before.Call(t.Context(), "node.status", nil, nil); err != nil {
		t.Errorf("a program that was connected before: %v", err)
	}
}
