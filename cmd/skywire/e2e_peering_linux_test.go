package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestE2EPeering: two clusters of three nodes that are run separately. One exports a web service: it is reached from the
// other, by one invite; no other port, node, service or verb is, and nothing in the other direction. Revoked, what is open is
// cut within a second, and a box that forgot about it is told.
func TestE2EPeering(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "peering")
	w.boxes("a1", "a2", "a3", "b1", "b2", "b3")
	w.must(w.lab.Wire(w.end("a1", "out", "192.0.2.1/24"), w.end("b1", "out", "192.0.2.2/24")))
	for i, c := range []string{"a", "b"} {
		for n := 2; n <= 3; n++ {
			w.must(w.lab.Wire(w.end(c+"1", fmt.Sprintf("to%d", n), fmt.Sprintf("10.%d.%d.1/24", i+1, n)), w.end(fmt.Sprintf("%s%d", c, n), "up", fmt.Sprintf("10.%d.%d.2/24", i+1, n))))
		}
		w.node(c+"1", "--no-lan", "--no-punch")
		w.found(c + "1")
		for n := 2; n <= 3; n++ {
			box := fmt.Sprintf("%s%d", c, n)
			w.node(box, "--no-lan", "--no-punch")
			w.join(box, w.invite(c+"1", "--name", box, "--addr", fmt.Sprintf("10.%d.%d.1:%s", i+1, n, meshPort)))
			w.member(box, func(m membershipJSON) bool { return m.State == "member" })
		}
	}
	for _, gate := range []string{"a1", "b1"} {
		p := w.start(gate, "messenger", "messenger", "run")
		w.wait("gateway of "+gate, func(ctx context.Context) error {
			_, err := w.box[gate].Skywire(ctx, "messenger", "peer", "list")
			return w.alive(p, err)
		})
	}
	w.serve("a2", "127.0.0.1:8080")
	ticks := w.tick("a2", "127.0.0.1:8081")
	w.start("a2", "publish", "socks", "publish", "web:80=tcp://127.0.0.1:8080", "ticks:81=tcp://127.0.0.1:8081", "secret:82=tcp://127.0.0.1:8080", "--allow", "any")
	w.serve("b2", "127.0.0.1:8080")
	w.start("b2", "publish", "socks", "publish", "inner:80=tcp://127.0.0.1:8080", "--allow", "any")
	w.offered("a1", "secret")

	invite := w.skywire("a1", "messenger", "peer", "invite", "--name", "oslo", "--export", "web", "--export", "tock=@oslo:ticks", "--export", "lan=10.1.2.0/24:8000-8099", "--at", "192.0.2.1:"+meshPort)
	if _, err := w.box["b2"].Skywire(t.Context(), "messenger", "peer", "accept", "--yes", invite); err == nil {
		t.Error("taken on a box without messenger")
	}
	began := time.Now()
	w.skywire("b1", "messenger", "peer", "accept", "--yes", "--name", "rome", "--at", "192.0.2.2:"+meshPort, invite)
	t.Logf("accepted after %v", time.Since(began).Round(time.Millisecond))
	w.offered("b3", "web@oslo")
	w.start("b3", "forward", "socks", "forward", "--local", "8080=b1:web@oslo", "--local", "8081=b1:tock@oslo", "--local", "8082="+w.key["a2"]+":web", "--local", "8083=b1:secret@oslo")
	w.checkWeb("b3", "http://127.0.0.1:8080/", "127.0.0.1")
	if out, err := w.box["b3"].Exec(t.Context(), "curl", "-sS", "-m", "5", "http://127.0.0.1:8081/"); err == nil && out != "" {
		t.Errorf("an export of no node that has the tag: %s", out)
	}
	for _, port := range []string{"8082", "8083"} {
		if out, err := w.box["b3"].Exec(t.Context(), "curl", "-sS", "-m", "5", "http://127.0.0.1:"+port+"/"); err == nil {
			t.Errorf("a service that is not exported, at %s: %s", port, out)
		}
	}

	for _, at := range []string{"10.1.2.2:8090", "10.1.2.2:7990", "10.1.3.2:8090"} { // a port and a subnet that are not in it, too
		w.serve("a"+at[5:6], at)
	}
	w.offered("b3", "lan@oslo")
	w.start("b3", "subnet", "socks", "client", "--server", "lan@oslo")
	proxied := []string{"-sS", "-m", "5", "--proxy", "socks5h://127.0.0.1:1080"}
	w.wait("the subnet of the other cluster", func(ctx context.Context) error {
		out, err := w.box["b3"].Exec(ctx, "curl", append(proxied, "http://10.1.2.2:8090/")...)
		if err == nil && !strings.Contains(out, secret) {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
	for _, at := range []string{"10.1.2.2:7990", "10.1.3.2:8090", "127.0.0.1:8080", "localhost:8080"} {
		if out, err := w.box["b3"].Exec(t.Context(), "curl", append(proxied, "http://"+at+"/")...); err == nil {
			t.Errorf("%s, which is not in the subnet and ports: %s", at, out)
		}
	}

	// A new agreement in its place, of which only the live service is left to see.
	invite = w.skywire("a1", "messenger", "peer", "invite", "--name", "oslo", "--export", "web", "--export", "live=a2:ticks", "--at", "192.0.2.1:"+meshPort)
	w.skywire("b1", "messenger", "peer", "accept", "--yes", "--name", "rome", "--at", "192.0.2.2:"+meshPort, invite)
	w.offered("b3", "live@oslo")
	w.start("b3", "forward2", "socks", "forward", "--local", "8084=b1:live@oslo")
	w.checkWeb("b3", "http://127.0.0.1:8080/", "127.0.0.1")

	w.closedToEach()
	w.revokedOnce(ticks)
}

// offered waits until a node sees a service.
func (w *world) offered(box, service string) {
	w.t.Helper()
	w.wait(box+" sees "+service, func(ctx context.Context) error {
		names, err := w.servicesSeen(ctx, box)
		if err == nil && !slices.Contains(names, service) {
			err = fmt.Errorf("there are %v", names)
		}
		return err
	})
}

func (w *world) servicesSeen(ctx context.Context, box string) (names []string, err error) {
	var all []struct{ Name string }
	err = w.box[box].SkywireJSON(ctx, &all, "node", "services")
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, err
}

// tick serves a stream that never ends: a letter each 10 ms.
func (w *world) tick(box, addr string) (open func() int) {
	w.t.Helper()
	l := w.listen(box, addr)
	var mu sync.Mutex
	n := 0
	go func() { // ends with the listener, each connection with its reader
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			go func() {
				defer func() { _ = c.Close(); mu.Lock(); n--; mu.Unlock() }()
				t := time.NewTicker(10 * time.Millisecond)
				defer t.Stop()
				for range t.C {
					if _, err := c.Write([]byte{'.'}); err != nil {
						return
					}
				}
			}()
		}
	}()
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// closedToEach scans every node of a cluster from every node of the other: ports, services and verbs.
func (w *world) closedToEach() {
	t := w.t
	t.Helper()
	w.vpnUp("a1", "a2", "a3", "b1", "b2", "b3")
	w.listen("a2", "["+w.address("a2")+"]:8090")
	w.listen("a3", "["+w.address("a3")+"]:8090")
	w.checkWeb("a1", "http://["+w.address("a2")+"]:80/", "127.0.0.1")                             // published there, too
	w.wait("the scanner finds 80, 81, 82 and 8090, which are open", func(context.Context) error { // under load an answer may come late
		if got := w.scan("a1", w.address("a2"), 8191); !slices.Equal(got, []int{80, 81, 82, 8090}) {
			return fmt.Errorf("it finds %v", got)
		}
		return nil
	})
	names := []string{"a1", "a2", "a3", "b1", "b2", "b3"}
	address := map[string]string{}
	for _, n := range names {
		address[n] = w.address(n)
	}
	var wg sync.WaitGroup
	for _, from := range names {
		foreign := func(s string) bool { return strings.Contains(s, "@") }
		if from[0] == 'b' {
			foreign = func(s string) bool { return s == "secret" || s == "ticks" || s == "web" }
		}
		if got, err := w.servicesSeen(t.Context(), from); err != nil || slices.ContainsFunc(got, foreign) {
			t.Errorf("%s sees the services %v, %v", from, got, err)
		}
	}
	for from, to := range map[string][]string{"b1": {"a1", "a2", "a3"}, "b2": {"a2"}, "b3": {"a2"}, "a3": {"b2"}} {
		w.route(from, address[to[0]])
		for _, n := range to {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if _, err := w.box[from].Skywire(ctx, "node", "ping", "-c", "1", w.key[n]); err == nil {
					t.Errorf("%s pings %s", from, n)
				}
				last := 8191 // those that are open somewhere, from everywhere; and all of the gate, and if there is time of all
				if from == "b1" && (n == "a1" || full()) {
					last = 65535
				}
				if got := w.scan(from, address[n], last); len(got) > 0 {
					t.Errorf("from %s ports %v of %s are open", from, got, n)
				}
			})
		}
	}
	wg.Go(func() {
		if got := w.scan("b1", "192.0.2.1", 65535); len(got) > 0 {
			t.Errorf("ports %v of the gate are open to the network", got)
		}
	})
	wg.Wait()
	if _, err := w.box["b1"].Skywire(t.Context(), "viscript", "-n", w.key["a1"], "status"); err == nil {
		t.Error("a verb of the other cluster's supervisor")
	}
}

// route leads packets for a prefix that is not of the own mesh into the TUN, too: what refuses them must be the node.
func (w *world) route(box, addr string) {
	w.t.Helper()
	a := netip.MustParseAddr(addr)
	prefix, err := a.Prefix(48)
	w.must(err)
	out := w.exec(box, "ip", "-6", "-o", "addr", "show", "to", w.address(box))
	f := strings.Fields(out)
	if len(f) < 2 {
		w.t.Fatalf("no device: %q", out)
	}
	w.must(w.box[box].IP("-6 route add " + prefix.String() + " dev " + f[1]))
}

// The pace of a scan: a TUN queues 500 packets, and what is dropped comes again too late.
const (
	scanBurst = 128
	scanPause = 3 * time.Millisecond
	scanWait  = 250 * time.Millisecond // how long a port has to answer
	scanMost  = 2048                   // descriptors; twice as many for a scan of all ports
)

// scan returns the TCP ports of an address, up to last, that are open as seen from a box.
func (w *world) scan(box, addr string, last int) (open []int) {
	a := netip.MustParseAddr(addr)
	most := scanMost
	if last == 65535 {
		most = 2 * scanMost
	}
	for first := 1; first <= last; first += most {
		fds := map[int]int{}
		for port := first; port < min(first+most, last+1); {
			err := w.box[box].Enter(func() error {
				for end := min(port+scanBurst, last+1); port < end; port++ {
					fd, err := connecting(a, port)
					if err != nil {
						return err
					}
					if fd >= 0 {
						fds[port] = fd
					}
				}
				return nil
			})
			if err != nil {
				w.t.Errorf("scan: %v", err)
				return nil
			}
			<-time.After(scanPause)
		}
		if len(fds) > 0 {
			<-time.After(scanWait)
		}
		for port, fd := range fds {
			if _, err := unix.Getpeername(fd); err == nil {
				open = append(open, port)
			}
			_ = unix.Close(fd)
		}
	}
	slices.Sort(open)
	return open
}

// connecting begins to connect; -1: it failed at once.
func connecting(a netip.Addr, port int) (int, error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	if a.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, unix.Close(fd)
	}
	return fd, nil
}

// revokedOnce revokes while a stream is open, and then brings a box back that knows nothing of it.
func (w *world) revokedOnce(open func() int) {
	t := w.t
	t.Helper()
	book := filepath.Join(w.box["b1"].State(), "peering.json")
	before, err := os.ReadFile(book)
	w.must(err)
	var live net.Conn
	w.wait("a live stream", func(context.Context) error {
		live = w.dial("b3", "127.0.0.1:8084", 1)[0]
		_ = live.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, err := io.ReadFull(live, make([]byte, 20))
		if err != nil {
			_ = live.Close()
		}
		return err
	})
	defer live.Close()
	if open() != 1 {
		t.Fatalf("%d streams at the service", open())
	}
	_ = live.SetReadDeadline(time.Now().Add(patience))
	cut := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, live)
		cut <- time.Now()
	}()
	began := time.Now()
	w.skywire("a1", "messenger", "peer", "revoke", "rome")
	said := time.Now()
	d := (<-cut).Sub(began)
	t.Logf("revoke took %v; the live stream ended %v after it was begun", said.Sub(began).Round(time.Millisecond), d.Round(time.Millisecond))
	if d > time.Second {
		t.Errorf("the live stream ended %v after revoke began", d)
	}
	w.wait("the service's end is cut", func(context.Context) error {
		if open() > 0 {
			return errors.New("it sends on")
		}
		return nil
	})
	state := func(box, peer string) string {
		var p struct{ State string }
		_ = w.box[box].SkywireJSON(t.Context(), &p, "messenger", "peer", "show", peer)
		return p.State
	}
	w.wait("the other side knows", func(context.Context) error {
		if s := state("b1", "oslo"); s != "revoked" {
			return errors.New(s)
		}
		return nil
	})
	if out, err := w.box["b3"].Exec(t.Context(), "curl", "-sS", "-m", "5", "http://127.0.0.1:8080/"); err == nil {
		t.Errorf("reached after revoke: %s", out)
	}

	// A box whose disk was rolled back brings the old record; it is refused, and told when
	// it comes with it, if not before.
	w.run["b1 messenger"].Kill()
	<-w.run["b1 messenger"].Done()
	var check struct{ Pairs []struct{ End []byte } }
	w.must(json.Unmarshal(before, &check), os.WriteFile(book, before, 0o600))
	if len(check.Pairs) != 1 || check.Pairs[0].End != nil {
		t.Fatalf("%+v", check)
	}
	w.start("b1", "messenger", "messenger", "run")
	w.wait("it is told", func(ctx context.Context) error {
		if out, err := w.box["b3"].Exec(ctx, "curl", "-sS", "-m", "10", "http://127.0.0.1:8080/"); err == nil {
			t.Errorf("the old record lives: %s", out)
		}
		if s := state("b1", "oslo"); s != "revoked" {
			return errors.New(s)
		}
		return nil
	})
	if s := state("a1", "rome"); s != "revoked" {
		t.Errorf("at a it is %s", s)
	}
}
