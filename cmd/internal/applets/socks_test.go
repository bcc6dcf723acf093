package applets

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/tracker"
	"skywire/signal"
	"skywire/socks/proxy"
)

// socksFakeNode answers on RUN/node.sock what the socks applet asks of a node; streams end unanswered.
type socksFakeNode struct {
	run      string
	info     app.Info
	exit     key.Public
	apps     any
	services any

	mu         sync.Mutex // guards the fields below
	registered []app.Registration
}

func startSocksNode(t *testing.T, prefix key.NetworkID) *socksFakeNode {
	t.Helper()
	run, err := os.MkdirTemp("", "sn") // short: the path of a unix socket is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	n := &socksFakeNode{run: run, exit: socksTestKey(t), services: []app.Service{}, apps: []any{}}
	n.info = app.Info{Key: socksTestKey(t), Prefix: prefix.Prefix()}
	l, err := signal.Listen(filepath.Join(run, app.SocketName), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() {
		_ = signal.Serve(ctx, l, func(*signal.Conn) signal.Handler { return n.serve })
	})
	return n
}

func socksTestKey(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func (n *socksFakeNode) serve(_ context.Context, r *signal.Request) (any, error) {
	var p struct {
		Name string `json:"name"`
	}
	n.mu.Lock()
	services, apps := n.services, n.apps
	n.mu.Unlock()
	switch r.Method {
	case "node.id":
		return n.info, nil
	case "node.services":
		return services, nil
	case "node.ping":
		return map[string]any{"rtt_ms": 12.5}, nil
	case "app.list":
		return apps, nil
	case "app.status":
		return struct{}{}, nil
	case "app.register":
		var g app.Registration
		if err := r.Bind(&g); err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.registered = append(n.registered, g)
		return struct{}{}, nil
	case "node.resolve":
		if err := r.Bind(&p); err != nil {
			return nil, err
		}
		if p.Name == "exit0" || p.Name == n.exit.String() {
			return map[string]any{"key": n.exit}, nil
		}
		return nil, signal.Errorf(signal.ErrNotFound, "no node %q", p.Name)
	}
	return nil, signal.ErrUnknownMethod
}

func (n *socksFakeNode) registration() *app.Registration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.registered) == 0 {
		return nil
	}
	return &n.registered[0]
}

// runSocks runs the applet with the words until it ends, or until ctx ends.
func runSocks(ctx context.Context, run string, words ...string) (code int, stdout, stderr string) {
	var out, talk bytes.Buffer
	e := &applet.Env{
		Args: words, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk,
		Environ: []string{"SKYWIRE_RUN=" + run, "SKYWIRE_STATE=" + run, "SKYWIRE_CONFIG=", "HOME=" + run},
	}
	code = socksApplet().Run(ctx, e)
	return code, out.String(), talk.String()
}

func TestSocksErrors(t *testing.T) {
	t.Parallel()
	n := startSocksNode(t, key.Open())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	empty := t.TempDir()
	tests := []struct {
		name  string
		run   string
		words string
		code  int
		talk  string
	}{
		{"no verb", n.run, "", 2, "which verb?"},
		{"unknown verb", n.run, "sever", 2, `did you mean "server"`},
		{"client without node", empty, "client", 3, "skywire node run"},
		{"server, a rule", n.run, "server --allow any --policy permit", 2, `policy rule "permit"`},
		{"server, a rate", n.run, "server --allow any --rate 20", 2, "with its unit"},
		{"server without node", empty, "server --allow any", 3, "skywire node run"},
		{"status without node", empty, "status", 3, "skywire node run"},
		{"port in use", n.run, "client --listen " + taken.Addr().String(), 1, "in use by "},
		{"exposed", n.run, "client --listen 0.0.0.0:0", 2, "--pass-file"},
		{"unknown server", n.run, "client --server nobody", 4, `no node "nobody"`},
		{"unknown key", n.run, "server --allow nobody", 4, "skywire node id"},
		{"user without password", n.run, "client --user ann", 2, "go together"},
		{"no password file", n.run, "client --user ann --pass-file " + empty + "/none", 1, "no such file"},
		{"exit at a tcp tracker", n.run, "server --allow any --tracker 127.0.0.1:20000", 2, "over the mesh"},
		{"two words", n.run, "client a b", 2, "NAME NODE_ADDR PORT"},
		{"port is none", n.run, "client a 127.0.0.1:1 x", 2, `"x"`},
		{"address is none", n.run, "server a b 1", 2, `"b"`},
		{"unknown flag", n.run, "client --listn x", 2, "--listen"},
		{"nothing runs", n.run, "status", 3, "skywire socks client"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, out, talk := runSocks(t.Context(), tt.run, strings.Fields(tt.words)...)
			if code != tt.code || !strings.Contains(talk, tt.talk) || !strings.HasPrefix(talk, "socks: ") || out != "" {
				t.Errorf("status %d, want %d; stdout %q; stderr %q, want it to contain %q", code, tt.code, out, talk, tt.talk)
			}
		})
	}
}

// TestSocksRuns starts the daemons, in today's and in 2017's words, and looks at what they tell the node.
func TestSocksRuns(t *testing.T) {
	t.Parallel()
	k := socksTestKey(t)
	tests := []struct {
		name    string
		cluster bool
		words   string
		want    app.Registration
		talk    string
	}{
		{"client", false, "client --listen 127.0.0.1:0 --server exit0", app.Registration{Name: "socks-client-0", Kind: "socks-client"}, "listening"},
		{"client of 2017", false, "client sockscli0 127.0.0.1:9000 PORT", app.Registration{Name: "sockscli0", Kind: "socks-client"}, "listening"},
		{"server, nobody", false, "server", app.Registration{Name: "socks-server", Kind: "socks-server"}, "--allow KEY"},
		{"server, any", false, "server --allow any", app.Registration{Name: "socks-server", Kind: "socks-server"}, ""},
		{"server, members", true, "server", app.Registration{Name: "socks-server", Kind: "socks-server"}, ""},
		{"server, petname", true, "server --allow exit0", app.Registration{Name: "socks-server", Kind: "socks-server"}, ""},
		{"server of 2017", false, "server sockssrv0 127.0.0.1:9000 8001", app.Registration{Name: "sockssrv0", Kind: "socks-server"}, "--allow KEY"},
		{"server of 2017, elsewhere", false, "server sockssrv0 101.202.34.56:9000 8001", app.Registration{Name: "sockssrv0", Kind: "socks-server"}, "no address of this box"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := key.Open()
			if tt.cluster {
				id = key.Cluster(k)
			}
			n := startSocksNode(t, id)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			type ended struct {
				code int
				talk string
			}
			done := make(chan ended, 1)
			words := strings.ReplaceAll(tt.words, "PORT", freePort(t))
			go func() {
				code, _, talk := runSocks(ctx, n.run, strings.Fields(words)...)
				done <- ended{code, talk}
			}()
			for n.registration() == nil && ctx.Err() == nil {
				select {
				case e := <-done:
					t.Fatalf("ended: %+v", e)
				case <-time.After(2 * time.Millisecond):
				}
			}
			got := n.registration()
			if got == nil || got.Name != tt.want.Name || got.Kind != tt.want.Kind {
				t.Errorf("registered %+v, want %+v", got, tt.want)
			}
			var allow string
			for _, s := range got.Services {
				if s.Packets != (s.Name == proxy.ServiceUDP) {
					t.Errorf("service %+v", s)
				}
				if s.Packets {
					continue
				}
				allow = s.Name + " " + s.Type + " " + strings.Join(s.Allow, ",")
			}
			want := map[string]string{
				"server, nobody": "socks socks ", "server, any": "socks socks *", "server, members": "socks socks *",
				"server, petname": "socks socks " + n.exit.String(), "server of 2017": "socks socks ", "server of 2017, elsewhere": "socks socks ",
			}[tt.name]
			if allow != want {
				t.Errorf("service %q, want %q", allow, want)
			}
			time.AfterFunc(100*time.Millisecond, cancel)
			if e := <-done; e.code != 0 || !strings.Contains(e.talk, tt.talk) {
				t.Errorf("status %d, stderr %q; want it to contain %q", e.code, e.talk, tt.talk)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestSocksShows(t *testing.T) {
	t.Parallel()
	n := startSocksNode(t, key.Open())
	rtt := 20.5
	n.mu.Lock()
	n.services = []app.Service{
		{Name: "socks", Type: "socks", Key: n.exit, Node: "slow", RTT: 90},
		{Name: "socks", Type: "socks", Key: n.info.Key, Node: "fast", Online: true, RTT: 3},
	}
	n.apps = []map[string]any{
		{"name": "tun0", "kind": "vpn"},
		{"name": "c", "kind": "socks-client", "pid": 7, "status": proxy.ClientStatus{
			Listen: "127.0.0.1:1080", Server: "auto", Exit: n.exit.String(), Granted: 3, Received: 5000,
			Exits: []proxy.ExitReport{{Key: n.exit.String(), RTT: &rtt}},
		}},
		{"name": "s", "kind": "socks-server", "pid": 8, "status": proxy.ExitStatus{Allow: 2, Connections: 4, Clients: 1}},
	}
	n.mu.Unlock()
	code, out, talk := runSocks(t.Context(), n.run, "status")
	for _, want := range []string{"c (pid 7): listening on 127.0.0.1:1080", "3 granted", "5 kB received", "20.5 ms", "s (pid 8): exit open to 2 keys", "4 connections and 0 UDP ports of 1 clients"} {
		if !strings.Contains(out, want) {
			t.Errorf("status %d, stdout %q lacks %q; stderr %q", code, out, want, talk)
		}
	}
	code, out, talk = runSocks(t.Context(), n.run, "servers")
	if fast, slow := strings.Index(out, "fast"), strings.Index(out, "slow"); code != 0 || fast < 0 || slow < fast {
		t.Errorf("servers: status %d, %q, %q", code, out, talk)
	}
	for _, words := range []string{"status --json", "servers --json", "servers --ping --json"} {
		code, out, talk := runSocks(t.Context(), n.run, strings.Fields(words)...)
		var all []map[string]any
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all) != 2 {
			t.Errorf("%s: status %d, %v, %q, %q", words, code, err, out, talk)
		}
	}
	for _, verb := range []string{"", "client", "server", "status", "servers"} {
		code, out, talk := runSocks(t.Context(), n.run, strings.Fields(verb+" --help")...)
		if code != 0 || !strings.Contains(out, "socks "+verb) || talk != "" {
			t.Errorf("%s --help: status %d, %q, %q", verb, code, out, talk)
		}
	}
}

// TestSocksTracker finds an exit through a tracker reached over TCP.
func TestSocksTracker(t *testing.T) {
	t.Parallel()
	n := startSocksNode(t, key.Open())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() {
		_ = signal.Serve(ctx, l, func(*signal.Conn) signal.Handler {
			return func(_ context.Context, r *signal.Request) (any, error) {
				socks := tracker.Service{Name: "socks", Type: "socks"}
				return []tracker.Entry{{Key: n.exit, Service: socks}, {Key: n.info.Key, Service: socks}, {Key: n.info.Key, Service: tracker.Service{Name: "vpn", Type: "vpn"}}}, nil
			}
		})
	})
	node, err := app.Dial(ctx, n.run)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	f := socksFinders(node, []string{l.Addr().String(), "nobody"})
	if got, err := f[0](ctx); err != nil || len(got) != 1 || got[0] != n.exit {
		t.Errorf("found %v, %v; want the exit and not this node itself", got, err)
	}
	if _, err := f[1](ctx); err == nil || !strings.Contains(err.Error(), "tracker nobody") {
		t.Errorf("unknown tracker: %v", err)
	}
}
