package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
)

// full reports whether the long forms are wanted: SKYWIRE_E2E=full.
func full() bool { return os.Getenv("SKYWIRE_E2E") == "full" }

const (
	patience = 30 * time.Second // for anything that should take a few seconds at most
	meshPort = "4443"
)

// builtBinary builds skywire once; SKYWIRE_BINARY names one that is there.
var builtBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("SKYWIRE_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path, err := filepath.Abs("../../build/e2e/skywire")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-ldflags", "-s -w -X skywire/cmd/internal/applet.version=e2e", "-o", path}
	if os.Getenv("SKYWIRE_BENCH_PROFILE") != "" {
		args = append(args, "-tags", "profile")
	}
	c := exec.Command("go", append(args, ".")...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// copyProgram copies a program in a process of its own: a child of this one that another test starts meanwhile would hold the new file
// open for writing, and whoever ran it would be told "text file busy".
func copyProgram(t testing.TB, from, to string) error {
	out, err := exec.CommandContext(t.Context(), "cp", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp %s %s: %w: %s", from, to, err, out)
	}
	return os.Chmod(to, 0o755)
}

// world is a lab with nodes in it.
type world struct {
	t    testing.TB
	lab  *lab.Lab
	box  map[string]*lab.Box
	key  map[string]string
	mu   sync.Mutex
	run  map[string]*lab.Process // "box what" → the newest process of that name
	addr map[string]string       // mesh addresses asked so far
}

// newWorld makes a lab, or skips the test without root. When the test fails it prints the ends of all logs.
func newWorld(t testing.TB, name string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	path, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Config{Name: name, Binary: path, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, lab: l, box: map[string]*lab.Box{}, key: map[string]string{}, run: map[string]*lab.Process{}, addr: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			for name, p := range w.run {
				t.Logf("--- log of %s\n%s", name, p.Tail(25))
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) must(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// boxes makes boxes with identities.
func (w *world) boxes(names ...string) {
	w.t.Helper()
	for _, n := range names {
		b, err := w.lab.Box(n)
		w.must(err)
		w.box[n] = b
		out, err := b.Skywire(w.t.Context(), "node", "id")
		w.must(err)
		w.key[n] = strings.TrimSpace(out)
	}
}

// plain makes boxes without skywire.
func (w *world) plain(names ...string) {
	w.t.Helper()
	for _, n := range names {
		b, err := w.lab.Box(n)
		w.must(err)
		w.box[n] = b
	}
}

func (w *world) end(box, dev string, addrs ...string) lab.End {
	return lab.End{Box: w.box[box], Dev: dev, Addrs: addrs}
}

// chain makes boxes, wires each to the next (10.1.N.1 and .2) and starts a node in each, peered to the one before.
// No underlay packet gets further than one wire.
func (w *world) chain(names ...string) {
	w.t.Helper()
	w.boxes(names...)
	for i, n := range names[1:] {
		w.must(w.lab.Wire(w.end(names[i], "next", fmt.Sprintf("10.1.%d.1/24", i)), w.end(n, "prev", fmt.Sprintf("10.1.%d.2/24", i))))
	}
	for i, n := range names {
		var args []string
		if i > 0 {
			args = []string{"--peer", w.peer(names[i-1], fmt.Sprintf("10.1.%d.1", i-1))}
		}
		w.node(n, args...)
	}
}

// peer is the KEY@ADDR of a box.
func (w *world) peer(box, host string) string { return w.key[box] + "@udp://" + host + ":" + meshPort }

// start starts an applet in a box.
func (w *world) start(box, what string, args ...string) *lab.Process {
	w.t.Helper()
	p, err := w.box[box].StartSkywire(what, args...)
	w.must(err)
	w.mu.Lock()
	w.run[box+" "+what] = p
	w.mu.Unlock()
	return p
}

// node starts the node of a box and waits until it answers.
func (w *world) node(box string, args ...string) *lab.Process {
	w.t.Helper()
	args = append([]string{"node", "run", "--name", box, "--listen", "udp://[::]:" + meshPort, "--open"}, args...)
	p := w.start(box, "node", args...)
	w.wait("node of "+box, func(ctx context.Context) error {
		_, err := w.box[box].Skywire(ctx, "node", "status")
		return w.alive(p, err)
	})
	return p
}

// alive turns err into a sentence that ends the waiting sooner when the process is gone.
func (w *world) alive(p *lab.Process, err error) error {
	select {
	case <-p.Done():
		w.t.Fatalf("%s in %s ended with %d: %s", p.Name, p.Box.Name, p.ExitCode(), p.Tail(10))
	default:
	}
	return err
}

func (w *world) wait(what string, check func(context.Context) error) {
	w.t.Helper()
	w.must(lab.Wait(w.t.Context(), patience, what, check))
}

// reach waits until one node reaches another over the mesh.
func (w *world) reach(from, to string) {
	w.t.Helper()
	w.wait(from+" reaches "+to, func(ctx context.Context) error {
		_, err := w.box[from].Skywire(ctx, "node", "ping", "-c", "1", w.key[to])
		return err
	})
}

// address is the mesh address of a box.
func (w *world) address(box string) string {
	w.t.Helper()
	var id struct{ Address string }
	w.must(w.box[box].SkywireJSON(w.t.Context(), &id, "node", "id"))
	return id.Address
}

// vpnUp gives boxes their mesh address on a TUN device.
func (w *world) vpnUp(boxes ...string) {
	w.t.Helper()
	w.vpnUpWith(nil, boxes...)
}

// vpnUpWith is vpnUp with more words for the applet.
func (w *world) vpnUpWith(words []string, boxes ...string) {
	w.t.Helper()
	for _, b := range boxes {
		w.start(b, "vpn", append([]string{"vpn", "up"}, words...)...)
	}
	for _, b := range boxes {
		w.wait("mesh address of "+b, func(ctx context.Context) error {
			out, err := w.box[b].Exec(ctx, "ip", "-6", "addr", "show", "to", w.address(b))
			if err == nil && out == "" {
				err = errors.New("not there")
			}
			return w.alive(w.run[b+" vpn"], err)
		})
	}
}

// pings sends a ping and wants an answer within patience.
func (w *world) pings(from, addr string) {
	w.t.Helper()
	w.wait("ping "+addr+" from "+from, func(ctx context.Context) error {
		_, err := w.box[from].Exec(ctx, "ping", "-c1", "-W1", addr)
		return err
	})
}

// exec runs a program in a box and fails the test when it fails.
func (w *world) exec(box, name string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := w.box[box].Exec(ctx, name, args...)
	w.must(err)
	return out
}

// status is the node status of a box as it prints it.
func (w *world) status(box string) map[string]any {
	w.t.Helper()
	var s map[string]any
	w.must(w.box[box].SkywireJSON(w.t.Context(), &s, "node", "status"))
	return s
}

// number adds up all numbers below v: drops are counted by reason.
func number(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case map[string]any:
		sum := 0.0
		for _, x := range v {
			sum += number(x)
		}
		return sum
	}
	return 0
}

// iperf runs iperf3 from one box to a server that it starts in another and returns bits per second.
func (w *world) iperf(from, to, addr string, args ...string) float64 {
	w.t.Helper()
	server, err := w.box[to].Start("iperf3", "iperf3", "-s", "-1", "--forceflush")
	w.must(err)
	defer server.Kill()
	w.wait("iperf3 server", func(ctx context.Context) error {
		_, err := w.box[to].Shell(ctx, "ss -Htln sport = :5201 | grep -q .")
		return err
	})
	out := w.exec(from, "iperf3", append([]string{"-c", addr, "-J", "-t", "3"}, args...)...)
	var r struct {
		Error string
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Sum struct {
				BitsPerSecond float64 `json:"bits_per_second"`
				LostPercent   float64 `json:"lost_percent"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Error != "" {
		w.t.Fatalf("iperf3 %v: %v %s", args, err, r.Error)
	}
	if r.End.SumReceived.BitsPerSecond > 0 {
		return r.End.SumReceived.BitsPerSecond
	}
	return r.End.Sum.BitsPerSecond * (1 - r.End.Sum.LostPercent/100)
}

// listen opens a TCP listener inside a box for this process.
func (w *world) listen(box, addr string) net.Listener {
	w.t.Helper()
	var l net.Listener
	w.must(w.box[box].Enter(func() (err error) {
		l, err = net.Listen("tcp", addr) // a literal address: it stays on this thread
		return err
	}))
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial opens n TCP connections inside a box for this process.
func (w *world) dial(box, addr string, n int) []net.Conn {
	w.t.Helper()
	conns := make([]net.Conn, 0, n)
	w.must(w.box[box].Enter(func() error {
		for range n {
			c, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	}))
	w.t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}

// udp opens a UDP socket inside a box for this process, connected to addr.
func (w *world) udp(box, addr string) net.Conn {
	w.t.Helper()
	var c net.Conn
	w.must(w.box[box].Enter(func() (err error) {
		c, err = net.Dial("udp", addr)
		return err
	}))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw opens a socket inside a box that sends whole IPv4 packets.
func (w *world) raw(box string) int {
	w.t.Helper()
	fd := -1
	w.must(w.box[box].Enter(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// footprint is all that programs could leave behind in a box: devices, addresses, routes, rules, nft.
func (w *world) footprint(box string) string {
	w.t.Helper()
	return w.exec(box, "sh", "-c", `ip -o link | sed 's/^[0-9]*: //; s/ qlen.*//' | cut -d' ' -f1
ip -o addr | awk '{print $2,$3,$4}'
ip route show table all; ip -6 route show table all | grep -v '^fe80\|^ff00\|multicast' | sed 's/ expires.*//'
ip rule; ip -6 rule
nft list ruleset
cat /etc/resolv.conf`)
}

// sockets are the socket files in a box's run folder.
func (w *world) sockets(box string) []string {
	w.t.Helper()
	var left []string
	err := filepath.WalkDir(w.box[box].Run(), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			left = append(left, path)
		}
		return nil
	})
	w.must(err)
	return left
}

// stopAll ends every process of the world in a good order and wants status 0 from each.
func (w *world) stopAll(order ...string) {
	w.t.Helper()
	for _, what := range order {
		for name, p := range w.run {
			if !strings.HasSuffix(name, " "+what) {
				continue
			}
			if err := p.Stop(10 * time.Second); err != nil {
				w.t.Error(err)
			} else if code := p.ExitCode(); code != 0 {
				w.t.Errorf("%s ended with %d: %s", name, code, p.Tail(5))
			}
			delete(w.run, name)
		}
	}
}
