package peering

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node"
)

// testCluster is a cluster of real nodes on the loopback.
type testCluster struct {
	t     *testing.T
	name  string
	key   *key.Private
	admin *key.Private
	list  []byte
	nodes []*testNode
}

type testNode struct {
	name   string
	state  string
	run    string
	key    *key.Private
	addr   string
	client *app.Client
	cert   []byte
	gw     *Gateway
	visits *Visits
}

func keyOf(t testing.TB) *key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// logTo shows the log of a failed test.
func logTo(t *testing.T, name string) *slog.Logger {
	if os.Getenv("PEERING_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("box", name)
}

func newList(t testing.TB, cluster, admin *key.Private, number uint64) []byte {
	t.Helper()
	raw, err := (&member.AdminList{Number: number, Issued: time.Now().Unix(), Admins: []member.Admin{{
		Key: admin.Public(), Powers: member.MayIssue | member.MayRevoke | member.MayTell, Roles: member.AllRoles,
		Life: 400 * 24 * time.Hour, AnyTag: true,
	}}}).Sign(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// newTestCluster starts n nodes, the first of which is the border.
func newTestCluster(t *testing.T, name string, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, name: name, key: keyOf(t), admin: keyOf(t)}
	c.list = newList(t, c.key, c.admin, 1)
	for i := range n {
		c.start(fmt.Sprintf("%s%d", name, i+1), i == 0)
	}
	for _, nd := range c.nodes {
		eventually(t, nd.name+" is a member and sees all", func() bool {
			var records []struct {
				Key key.Public `json:"key"`
			}
			return nd.client.Call(t.Context(), "node.records", nil, &records) == nil && len(records) >= n
		})
	}
	return c
}

func (c *testCluster) certificate(k key.Public, name string, roles member.Roles) []byte {
	c.t.Helper()
	now := time.Now().Unix()
	raw, err := (&member.Certificate{
		Cluster: key.Cluster(c.key.Public()), Node: k, Admin: c.admin.Public(), Roles: member.RoleMember | roles, Serial: uint64(len(c.nodes) + 1),
		Issued: now, NotAfter: now + 30*24*3600, Name: name,
	}).Sign(key.Cluster(c.key.Public()), c.admin)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().String()
}

func (c *testCluster) start(name string, border bool) *testNode {
	t := c.t
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	nd := &testNode{name: name, state: filepath.Join(dir, "s"), run: filepath.Join(dir, "r"), addr: freePort(t)}
	if err := os.MkdirAll(nd.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if nd.key, _, err = key.LoadOrCreate(filepath.Join(nd.state, "node.key")); err != nil {
		t.Fatal(err)
	}
	conf := node.Config{
		State: nd.state, Run: nd.run, Name: name, Listen: []string{nd.addr}, Loops: 1, Memory: 64 << 20, NoPunch: true,
		Find: node.Finding{Publish: node.PublishNone}, Log: logTo(t, name),
	}
	if len(c.nodes) > 0 {
		conf.Peers = []node.Peer{{Key: c.nodes[0].key.Public(), Addr: c.nodes[0].addr}}
	}
	runNode(t, conf)
	var roles member.Roles
	if border {
		roles = member.RoleBorder
	}
	nd.client = dialNode(t, nd.run)
	c.adopt(nd, roles)
	c.nodes = append(c.nodes, nd)
	return nd
}

// adopt makes a node a member.
func (c *testCluster) adopt(nd *testNode, roles member.Roles) {
	t := c.t
	t.Helper()
	nd.cert = c.certificate(nd.key.Public(), nd.name, roles)
	if err := nd.client.Call(t.Context(), "member.adopt", map[string]any{"cluster": c.key.Public(), "statements": [][]byte{c.list, nd.cert}}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, nd.name+" has moved", func() bool { return nd.client.Self().Network == key.Cluster(c.key.Public()) })
}

// rekey gives the cluster a new key, new administrators, and all of its nodes to it; the old keys are returned.
func (c *testCluster) rekey() (old *testCluster) {
	t := c.t
	t.Helper()
	old = &testCluster{t: t, name: c.name, key: c.key, admin: c.admin, list: c.list, nodes: c.nodes}
	c.key, c.admin = keyOf(t), keyOf(t)
	c.list = newList(t, c.key, c.admin, 1)
	for i, nd := range c.nodes {
		if err := nd.client.Call(t.Context(), "member.leave", nil, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, nd.name+" has left", func() bool { return nd.client.Self().Network != key.Cluster(old.key.Public()) })
		var roles member.Roles
		if i == 0 {
			roles = member.RoleBorder
		}
		c.adopt(nd, roles)
	}
	return old
}

// openNode is a node of the open network.
func openNode(t *testing.T) *testNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	nd := &testNode{name: "open", state: filepath.Join(dir, "s"), run: filepath.Join(dir, "r"), addr: freePort(t)}
	runNode(t, node.Config{
		State: nd.state, Run: nd.run, Name: nd.name, Open: true, Listen: []string{nd.addr}, Loops: 1, Memory: 64 << 20, NoPunch: true, Log: logTo(t, nd.name),
	})
	if nd.key, err = key.Load(filepath.Join(nd.state, "node.key")); err != nil {
		t.Fatal(err)
	}
	nd.client = dialNode(t, nd.run)
	return nd
}

// runNode runs a node until the test ends, in whatever network it moves to.
func runNode(t *testing.T, conf node.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan struct{})
	conf.Ready = sync.OnceFunc(func() { close(up) })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := node.Run(ctx, conf); err != nil {
			t.Errorf("node %s: %v", conf.Name, err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		t.Fatalf("node %s is not up", conf.Name)
	}
}

func dialNode(t *testing.T, run string) *app.Client {
	t.Helper()
	var client *app.Client
	eventually(t, "the node answers", func() bool {
		var err error
		client, err = app.Dial(t.Context(), run)
		return err == nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { client.Run(ctx) })
	t.Cleanup(func() { client.Close(); cancel(); wg.Wait() })
	return client
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-end:
			t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

// testVisit runs visitors, as the program does.
func testVisit(log *slog.Logger) func(ctx context.Context, v Visit) error {
	return func(ctx context.Context, v Visit) error {
		c := node.Config{
			State: v.State, Run: v.Run, Listen: []string{"127.0.0.1:0"}, Loops: 1, Memory: 64 << 20, NoPunch: true,
			Find: node.Finding{Publish: node.PublishNone}, Ready: v.Ready, Log: log,
		}
		if !v.Cluster.IsZero() {
			c.Visit = v.Node
			if err := node.WriteCluster(v.State, node.Cluster{Key: v.Cluster}); err != nil {
				return err
			}
		}
		c.Allow = []key.Public{v.Node}
		for _, p := range v.Peers {
			c.Peers = append(c.Peers, node.Peer{Key: p.Key, Addr: strings.TrimPrefix(p.Addr, "udp://")})
			c.Allow = append(c.Allow, p.Key)
		}
		n, err := node.New(c)
		if err != nil {
			return err
		}
		return n.Run(ctx)
	}
}

// gateway runs one beside a node.
func (c *testCluster) gateway(nd *testNode, admin bool) *Gateway {
	t := c.t
	t.Helper()
	log := logTo(t, nd.name+" gateway")
	nd.visits = NewVisits(VisitsConfig{Home: nd.client, Dir: filepath.Join(nd.run, "v"), Start: testVisit(log), Log: log})
	conf := Config{Run: nd.run, State: nd.state, Visits: nd.visits, Node: nd.key, Log: log}
	if admin {
		conf.Admin = func() (*key.Private, error) { return c.admin, nil }
	}
	g, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	wg.Go(func() { nd.visits.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, "the gateway of "+nd.name+" is up", func() bool { _, _, _, err := g.beside(); return err == nil })
	eventually(t, "visits of "+nd.name+" may begin", func() bool { nd.visits.mu.Lock(); defer nd.visits.mu.Unlock(); return nd.visits.base != nil })
	nd.gw = g
	return g
}

// ask calls a method of a gateway's socket.
func ask[R any](t *testing.T, g *Gateway, name string, params any) (r R, err error) {
	t.Helper()
	raw, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	v, err := g.Methods()[name](ctx, raw)
	if err != nil {
		return r, err
	}
	return v.(R), nil
}

// offer makes a node offer an echo under a name, to members.
func (nd *testNode) offer(t *testing.T, services ...string) {
	t.Helper()
	reg := app.Registration{Name: "test", Kind: "test"}
	for _, s := range services {
		reg.Services = append(reg.Services, app.Service{Name: s, Type: "tcp", Port: 80, Allow: []string{app.AnyMember}})
	}
	if err := nd.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() {
			for ctx.Err() == nil {
				in, err := nd.client.Accept(ctx, s)
				if err != nil {
					return
				}
				conn, err := in.Accept([]byte(s))
				if err != nil {
					continue
				}
				go func() {
					defer conn.Close()
					io.Copy(conn, conn)
				}()
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// echo dials a service and has it repeat a text.
func echo(t *testing.T, from *testNode, to key.Public, service string) (*app.Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := from.client.Dial(ctx, to, service, nil)
	if err != nil {
		return nil, err
	}
	if err := repeat(s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func repeat(s *app.Stream) error {
	s.SetDeadline(time.Now().Add(10 * time.Second))
	defer s.SetDeadline(time.Time{})
	if _, err := s.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("%q: %w", got, err)
	}
	return nil
}
