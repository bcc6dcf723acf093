package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// carrierWorld is a, behind a router r that may drop what it likes, and b with a node on every carrier, beside b's reverse
// proxy.
func carrierWorld(t *testing.T, name string) *world {
	t.Helper()
	w := newWorld(t, name)
	w.boxes("a", "b")
	w.plain("r")
	w.must(
		w.lab.Wire(w.end("a", "eth0", "10.61.1.2/24"), w.end("r", "lan", "10.61.1.1/24")),
		w.lab.Wire(w.end("b", "eth0", "10.61.2.2/24"), w.end("r", "wan", "10.61.2.1/24")),
		w.box["r"].Forward(),
		w.box["a"].IP("route add default via 10.61.1.1"),
		w.box["b"].IP("route add default via 10.61.2.1"),
		w.box["r"].NFT("table inet carrier { chain forward { type filter hook forward priority 0; policy accept; }; }"),
	)
	w.node("b", "--no-lan", "--listen", "tcp://:4443", "--listen", "wss://:443/mesh", "--listen", "ws://127.0.0.1:8080/mesh")
	return w
}

// drop gives the router rules; what none of them drops passes.
func (w *world) drop(rules ...string) {
	w.t.Helper()
	text := "flush chain inet carrier forward\n"
	for _, r := range rules {
		text += "add rule inet carrier forward " + r + "\n"
	}
	w.must(w.box["r"].NFT(text))
}

// by is the KEY@ADDR of b by a carrier.
func (w *world) by(addr string) string { return w.key["b"] + "@" + addr }

// over waits until a's link to b is up over a carrier, and returns how long that took.
func (w *world) over(want string, limit time.Duration) time.Duration {
	w.t.Helper()
	begun := time.Now()
	for {
		var peers []struct{ Key, State, Carrier, Endpoint, Reason string }
		err := w.box["a"].SkywireJSON(w.t.Context(), &peers, "node", "peers")
		for _, p := range peers {
			if err == nil && p.Key == w.key["b"] && p.State == "up" && p.Carrier == want {
				return time.Since(begun)
			}
		}
		if time.Since(begun) > limit {
			w.t.Fatalf("not over %s within %v: %+v %v", want, limit, peers, err)
		}
	}
}

const noUDP = "ip protocol udp drop"

// only lets TCP to one port pass, and nothing else.
func only(port string) []string {
	return []string{"tcp dport " + port + " accept", "tcp sport " + port + " accept", "ip protocol { tcp, udp } drop"}
}

// linkTime bounds what must happen within three seconds on a quiet machine.
const linkTime = 10 * time.Second

// TestE2ECarrierBlocked starts a node where UDP, and in turn TCP, are dropped: it is connected by what is left. The
// programs between are those that people have: a CONNECT proxy, a reverse proxy.
func TestE2ECarrierBlocked(t *testing.T) {
	t.Parallel()
	w := carrierWorld(t, "carblk")
	udp, tcp, wss := w.by("udp://10.61.2.2:4443"), w.by("tcp://10.61.2.2:4443"), w.by("wss://10.61.2.2/mesh")
	w.proxies()
	for _, c := range []struct {
		name, want string
		drops      []string
		args       []string
	}{
		{"nothing", "udp", nil, []string{"--peer", udp, "--peer", tcp, "--peer", wss}},
		{"udp", "tcp", []string{noUDP}, []string{"--peer", udp, "--peer", tcp, "--peer", wss}},
		{"all but 443", "wss", only("443"), []string{"--peer", udp, "--peer", tcp, "--peer", wss}},
		{"all, by proxy", "wss", only("1"), []string{"--peer", udp, "--peer", wss, "--proxy", "http://me:secret@10.61.1.1:3128"}},
		{"all, by reverse proxy", "wss", only("8443"), []string{"--peer", udp, "--peer", w.by("wss://10.61.2.2:8443/mesh")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.drop(c.drops...)
			p := w.node("a", append([]string{"--no-lan"}, c.args...)...)
			took := w.over(c.want, linkTime)
			t.Logf("%s dropped: up over %s after %v", c.name, c.want, took.Round(10*time.Millisecond))
			w.reach("a", "b")
			w.must(p.Stop(5 * time.Second))
		})
	}
	for name, want := range map[string]string{"https://10.61.2.2/": "404", "http://10.61.2.2:4443/": "400", "http://10.61.2.2:443/": "400"} {
		w.drop()
		if got := w.exec("a", "curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", name); got != want {
			t.Errorf("%s answers %s, want %s", name, got, want)
		}
	}
}

// proxies starts tinyproxy in r and nginx in b.
func (w *world) proxies() {
	w.t.Helper()
	dir := w.lab.Dir()
	tiny := filepath.Join(dir, "tinyproxy.conf")
	w.must(os.WriteFile(tiny, []byte("Port 3128\nListen 10.61.1.1\nTimeout 600\nAllow 10.61.1.2\nBasicAuth me secret\nConnectPort 443\nMaxClients 8\nStartServers 2\n"), 0o600))
	_, err := w.box["r"].Start("tinyproxy", "tinyproxy", "-d", "-c", tiny)
	w.must(err)
	ng, cert := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "nginx.pem")
	w.exec("b", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=box.example",
		"-keyout", cert+".key", "-out", cert)
	w.must(os.WriteFile(ng, fmt.Appendf(nil, `daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log; worker_processes 1; user root;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server {
		listen 8443 ssl; ssl_certificate %[2]s; ssl_certificate_key %[2]s.key;
		location /mesh { proxy_pass http://127.0.0.1:8080; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_read_timeout 1h; }
	}
}
`, dir, cert), 0o600))
	_, err = w.box["b"].Start("nginx", "nginx", "-c", ng)
	w.must(err)
	w.wait("proxies", func(ctx context.Context) error {
		_, err := w.box["r"].Shell(ctx, "ss -Htln sport = :3128 | grep -q .")
		if err == nil {
			_, err = w.box["b"].Shell(ctx, "ss -Htln sport = :8443 | grep -q .")
		}
		return err
	})
}

// TestE2ECarrierChanges drops UDP in the middle of a transfer, and lets it pass again: the transfer goes on, over TCP and
// back, and no byte is lost or changed.
func TestE2ECarrierChanges(t *testing.T) {
	t.Parallel()
	w := carrierWorld(t, "carchg")
	w.node("a", "--no-lan", "--peer", w.by("udp://10.61.2.2:4443"), "--peer", w.by("tcp://10.61.2.2:4443"))
	w.reach("a", "b")
	w.over("udp", linkTime)
	w.vpnUp("a", "b")
	to := w.address("b")
	w.pings("a", to)
	l := w.listen("b", net.JoinHostPort(to, "9000"))
	flow := newSteadyFlow(w, l, to)
	flow.until(1 << 20)
	w.drop(noUDP)
	gap := flow.gap(func() { w.over("tcp", linkTime) })
	t.Logf("udp dropped: the longest silence of the transfer was %v", gap.Round(10*time.Millisecond))
	w.drop()
	back := w.over("udp", 40*time.Second)
	gap = flow.gap(func() {})
	t.Logf("udp passes again: back on it after %v, the longest silence was %v", back.Round(10*time.Millisecond), gap.Round(10*time.Millisecond))
	flow.finish(t)
	for _, box := range []string{"a", "b"} {
		for _, bad := range []string{"link down", "path lost", "session ended"} {
			if log := w.run[box+" node"].Output(); strings.Contains(log, bad) {
				t.Errorf("%s: %s", box, bad)
			}
		}
	}
}

// steadyFlow is a TCP connection over the mesh that carries a known stream of bytes.
type steadyFlow struct {
	w       *world
	near    net.Conn
	stop    chan struct{}
	sent    chan []byte // the sum of what was sent, at the end
	got     chan []byte
	arrived chan int // bytes, as they come
}

func newSteadyFlow(w *world, l net.Listener, to string) *steadyFlow {
	f := &steadyFlow{w: w, stop: make(chan struct{}), sent: make(chan []byte, 1), got: make(chan []byte, 1), arrived: make(chan int, 1<<16)}
	f.near = w.dial("a", net.JoinHostPort(to, "9000"), 1)[0]
	far, err := l.Accept()
	w.must(err)
	go func() {
		sum := sha256.New()
		b := make([]byte, 16<<10)
		tick := time.NewTicker(5 * time.Millisecond) // 3 MB/s: steady, and no load for the machine
		defer tick.Stop()
		source := known(1 << 40)
		for {
			select {
			case <-f.stop:
				_ = f.near.(*net.TCPConn).CloseWrite()
				f.sent <- sum.Sum(nil)
				return
			case <-tick.C:
			}
			_, _ = io.ReadFull(source, b)
			sum.Write(b)
			if _, err := f.near.Write(b); err != nil {
				f.sent <- nil
				return
			}
		}
	}()
	go func() {
		defer far.Close()
		sum := sha256.New()
		b := make([]byte, 64<<10)
		for {
			n, err := far.Read(b)
			sum.Write(b[:n])
			select {
			case f.arrived <- n:
			default:
			}
			if err != nil {
				f.got <- sum.Sum(nil)
				return
			}
		}
	}()
	return f
}

// until waits for so many bytes.
func (f *steadyFlow) until(n int) {
	f.w.t.Helper()
	limit := time.After(patience)
	for n > 0 {
		select {
		case got := <-f.arrived:
			n -= got
		case <-limit:
			f.w.t.Fatal("nothing arrives")
		}
	}
}

// gap returns the longest time without a byte from now until so many have come after do has ended.
func (f *steadyFlow) gap(do func()) time.Duration {
	f.w.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	longest, last := time.Duration(0), time.Now()
	limit := time.After(patience)
	after := 2 << 20
	for after > 0 {
		select {
		case n := <-f.arrived:
			longest = max(longest, time.Since(last))
			last = time.Now()
			select {
			case <-done:
				after -= n
			default:
			}
		case <-limit:
			f.w.t.Fatalf("nothing arrives for %v", time.Since(last))
		}
	}
	<-done
	return longest
}

func (f *steadyFlow) finish(t *testing.T) {
	t.Helper()
	close(f.stop)
	limit := time.After(patience)
	var sent, got []byte
	for sent == nil || got == nil {
		select {
		case sent = <-f.sent:
			if sent == nil {
				t.Fatal("the connection broke")
			}
		case got = <-f.got:
		case <-limit:
			t.Fatal("the transfer does not end")
		}
	}
	if !bytes.Equal(sent, got) {
		t.Error("the bytes differ")
	}
}

// TestE2ECarrierRelay has a relay between carriers of two kinds, and measures what TCP and WSS carry beside UDP, in turn.
// Nothing is asked of the figures: the boxes of the test share a machine with others.
func TestE2ECarrierRelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "carrly")
	w.boxes("r", "u", "t", "s")
	w.node("r", "--no-lan", "--listen", "tcp://:4443", "--listen", "wss://:443/mesh")
	for i, c := range []struct{ box, addr string }{{"u", "udp://10.62.0.1:4443"}, {"t", "tcp://10.62.1.1:4443"}, {"s", "wss://10.62.2.1/mesh"}} {
		w.must(w.lab.Wire(w.end("r", "to-"+c.box, fmt.Sprintf("10.62.%d.1/24", i)), w.end(c.box, "eth0", fmt.Sprintf("10.62.%d.2/24", i))))
		w.node(c.box, "--no-lan", "--peer", w.key["r"]+"@"+c.addr)
	}
	names := []string{"u", "t", "s"}
	w.vpnUp(append(names, "r")...)
	for _, from := range names {
		for _, to := range append(names, "r") {
			if from != to {
				w.reach(from, to)
				w.pings(from, w.address(to))
			}
		}
	}
	rates := map[string][]float64{}
	for range 2 {
		for _, pair := range [][2]string{{"u", "r"}, {"t", "r"}, {"s", "r"}, {"u", "t"}, {"s", "u"}} {
			rate := w.iperf(pair[0], pair[1], w.address(pair[1]), "-t", "1")
			if rate <= 0 {
				t.Errorf("%s to %s: nothing", pair[0], pair[1])
			}
			rates[pair[0]+pair[1]] = append(rates[pair[0]+pair[1]], rate/1e9)
		}
	}
	t.Logf("two rounds of a second each: udp %.2f, tcp %.2f, wss %.2f; relayed udp to tcp %.2f, wss to udp %.2f Gbit/s",
		rates["ur"], rates["tr"], rates["sr"], rates["ut"], rates["su"])
}
