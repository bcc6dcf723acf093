package vpn_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/key"
	"skywire/tun"
)

// box is a network namespace, kept by a sleeping process.
type box struct {
	t   *testing.T
	pid string
	dir string
}

func newBox(t *testing.T) *box {
	t.Helper()
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Skip("no network namespace:", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	b := &box{t: t, pid: fmt.Sprint(cmd.Process.Pid), dir: t.TempDir()}
	b.run("ip link set lo up")
	return b
}

func (b *box) try(line string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"-t", b.pid, "-n"}, strings.Fields(line)...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *box) run(line string) string {
	b.t.Helper()
	out, err := b.try(line)
	if err != nil {
		b.t.Errorf("%s: %v\n%s", line, err, out)
	}
	return out
}

// state is everything of the network that a vpn may change.
func (b *box) state() string {
	b.t.Helper()
	var s strings.Builder
	for _, line := range []string{
		"ip -o link", "ip -o addr", "ip -4 route show table all", "ip -6 route show table all", "ip -4 rule", "ip -6 rule",
		"nft list ruleset", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
		"cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
	} {
		s.WriteString("# " + line + "\n" + b.run(line))
	}
	return s.String()
}

// eventually runs f until it is content.
func (b *box) eventually(what string, f func() error) {
	b.t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		if err = f(); err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	b.t.Fatalf("%s: %v", what, err)
}

// log is what a process said so far.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *log) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

type process struct {
	*exec.Cmd
	log  *log
	done chan struct{}
}

// start runs a role of TestMain in the box.
func (b *box) start(role string, mesh *os.File, env ...string) *process {
	b.t.Helper()
	p := &process{exec.Command("nsenter", "-t", b.pid, "-n", os.Args[0]), &log{}, make(chan struct{})}
	p.Env = append(append(os.Environ(), "SKYWIRE_VPN_TEST="+role, "SKYWIRE_VPN_DIR="+b.dir), env...)
	p.ExtraFiles = []*os.File{mesh}
	p.Stderr = p.log
	if err := p.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.done) }()
	b.t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		if b.t.Failed() {
			b.t.Logf("%s:\n%s", role, p.log)
		}
	})
	return p
}

func (p *process) end(t *testing.T, sig os.Signal) {
	t.Helper()
	_ = p.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		t.Fatalf("does not end on %v:\n%s", sig, p.log)
	}
}

// world is client ═ mesh ═ server ─ wan ─ internet, with 198.51.100.1, 192.168.9.1 and 10.7.7.7 there.
type world struct {
	client, server, internet *box
	mesh                     [2]*os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if err := tun.Available(); err != nil {
		t.Skip(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{client: newBox(t), server: newBox(t), internet: newBox(t)}
	for i, fd := range fds {
		w.mesh[i] = os.NewFile(uintptr(fd), "mesh")
		t.Cleanup(func() { w.mesh[i].Close() })
	}
	w.wire(w.server, "198.51.100.2/24", w.internet, "198.51.100.1/24")
	w.wire(w.client, "192.168.1.2/24", w.internet, "192.168.1.1/24")
	w.server.run("ip addr add 2001:db8::2/64 dev wan nodad")
	w.server.run("ip route add default via 198.51.100.1")
	w.server.run("ip -6 route add default via 2001:db8::1")
	w.client.run("ip route add default via 192.168.1.1")
	for _, a := range []string{"192.168.9.1/32", "10.7.7.7/32", "8.8.4.4/32", "2001:db8::1/64", "2001:4860::8/128"} {
		w.internet.run("ip addr add " + a + " dev wan0 " + map[bool]string{true: "nodad"}[strings.Contains(a, ":")])
	}
	w.server.run("ip route add 192.168.9.0/24 via 198.51.100.1")
	// A box with a closed firewall and a strict reverse path check.
	w.server.run("nft add table ip closed")
	w.server.run("nft add chain ip closed forward { type filter hook forward priority 0 ; policy drop ; }")
	w.client.run("sysctl -qw net.ipv4.conf.all.rp_filter=1")
	for _, b := range []*box{w.client, w.server, w.internet} {
		b.eventually("addresses", func() error {
			if out := b.run("ip -o -6 addr show tentative"); strings.Contains(out, "inet6") {
				return fmt.Errorf("tentative: %s", out)
			}
			return nil
		})
	}
	return w
}

func (w *world) wire(a *box, addrA string, b *box, addrB string) {
	w.client.t.Helper()
	name := "wan0"
	if a == w.client {
		name = "lan0"
	}
	a.run("ip link add wan type veth peer name " + name + " netns " + b.pid)
	a.run("ip addr add " + addrA + " dev wan")
	b.run("ip addr add " + addrB + " dev " + name)
	a.run("ip link set wan up")
	b.run("ip link set " + name + " up")
}

func (w *world) connected(p *process) {
	w.client.t.Helper()
	w.client.eventually("client connects", func() error {
		if !strings.Contains(p.log.String(), `msg="vpn connected"`) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

func TestExit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, client, server string }{
		{"vnet", "", ""}, {"plain client", "1", ""}, {"plain server", "", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			clientBefore, serverBefore := w.client.state(), w.server.state()
			server := w.server.start("server", w.mesh[1], "SKYWIRE_VPN_PLAIN="+c.server)
			client := w.client.start("client", w.mesh[0], "SKYWIRE_VPN_PLAIN="+c.client)
			w.connected(client)
			w.checkReach(t)
			w.checkTransfer(t)
			client.end(t, unix.SIGTERM)
			if after := w.client.state(); after != clientBefore {
				t.Errorf("client's box after the end:\n%s\nbefore:\n%s", after, clientBefore)
			}
			server.end(t, unix.SIGTERM)
			if after := w.server.state(); after != serverBefore {
				t.Errorf("server's box after the end:\n%s\nbefore:\n%s", after, serverBefore)
			}
			for _, b := range []*box{w.client, w.server} {
				if left, _ := filepath.Glob(b.dir + "/*journal*"); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
		})
	}
}

// checkReach looks from the client's box at what it is to reach and what not.
func (w *world) checkReach(t *testing.T) {
	t.Helper()
	serverMesh := key.Open().Address(testKey(2)).String()
	for _, a := range []string{serverMesh, "198.51.100.1", "8.8.4.4", "2001:4860::8", "192.168.9.1", "192.168.1.1"} {
		w.client.run("ping -c1 -W2 " + a)
	}
	for _, a := range []string{"10.7.7.7", "9.9.9.9", "198.51.100.2"} { // private, unasked subnet, the server's own address
		if out, err := w.client.try("ping -c1 -W1 " + a); err == nil {
			t.Errorf("%s answers:\n%s", a, out)
		}
	}
	// The mesh's own packets pass a strict reverse path check although everything else goes into the tunnel.
	w.client.run("ping -c1 -W2 -m 21335 198.51.100.1")
	for _, c := range []struct{ route, want string }{
		{"8.8.4.4", "dev skywire0"},
		{"8.8.4.4 mark 0x5357", "dev wan"},
		{"203.0.113.9", "dev wan"},
		{"192.168.1.1", "dev wan"},
		{"192.168.9.9", "dev skywire0"},
		{"2001:4860::8", "dev skywire0"},
	} {
		if out := w.client.run("ip route get " + c.route); !strings.Contains(out, c.want) {
			t.Errorf("route to %s: %s, want %s", c.route, out, c.want)
		}
	}
}

// checkTransfer moves 50 MB each way by TCP over IPv4 (through NAT) and IPv6 (mesh address), and compares checksums.
func (w *world) checkTransfer(t *testing.T) {
	t.Helper()
	data := filepath.Join(w.client.dir, "data")
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+data, "bs=1M", "count=50").CombinedOutput(); err != nil {
		t.Fatalf("dd: %v\n%s", err, out)
	}
	const serve = `
import socket,sys,hashlib
s=socket.create_server((sys.argv[1],7000),family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET,backlog=8)
print("ready",flush=True)
c,a=s.accept()
h=hashlib.sha256(); got=b""
while True:
    b=c.recv(1<<20)
    if not b: break
    h.update(b); got+=b
c.sendall(got); c.close()
print(a[0],h.hexdigest(),flush=True)
`
	const ask = `
import socket,sys,hashlib,threading
d=open(sys.argv[2],"rb").read()
c=socket.create_connection((sys.argv[1],7000),timeout=20)
threading.Thread(target=lambda:(c.sendall(d),c.shutdown(1))).start()
h=hashlib.sha256()
while True:
    b=c.recv(1<<20)
    if not b: break
    h.update(b)
print(h.hexdigest()==hashlib.sha256(d).hexdigest())
`
	for _, c := range []struct {
		at         *box
		addr, from string
	}{
		{w.internet, "8.8.4.4", "198.51.100.2"},
		{w.internet, "2001:4860::8", "2001:db8::2"},
		{w.server, key.Open().Address(testKey(2)).String(), key.Open().Address(testKey(1)).String()},
	} {
		out := &log{}
		cmd := exec.Command("nsenter", "-t", c.at.pid, "-n", "python3", "-c", serve, c.addr)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Skip("no python3:", err)
		}
		c.at.eventually("web", func() error {
			if !strings.Contains(out.String(), "ready") {
				return fmt.Errorf("not ready: %s", out)
			}
			return nil
		})
		began := time.Now()
		got, err := exec.Command("nsenter", "-t", w.client.pid, "-n", "python3", "-c", ask, c.addr, data).CombinedOutput()
		if err != nil || strings.TrimSpace(string(got)) != "True" {
			t.Errorf("transfer with %s: %v %s", c.addr, err, got)
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if !strings.Contains(out.String(), c.from+" ") {
			t.Errorf("%s saw %s, want %s", c.addr, out, c.from)
		}
		t.Logf("100 MB with %s in %v", c.addr, time.Since(began).Round(time.Millisecond))
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clientBefore, serverBefore := w.client.state(), w.server.state()
	server := w.server.start("server", w.mesh[1])
	client := w.client.start("client", w.mesh[0])
	w.connected(client)

	// A killed server comes back: its leftovers go, the lease is the same, the client is connected again by itself.
	server.end(t, unix.SIGKILL)
	server = w.server.start("server", w.mesh[1])
	w.client.eventually("client connects again", func() error {
		if strings.Count(client.log.String(), `msg="vpn connected"`) < 2 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	w.client.run("ping -c1 -W2 8.8.4.4")

	client.end(t, unix.SIGKILL)
	if out := w.client.run("ip rule"); !strings.Contains(out, "fwmark") {
		t.Errorf("a kill took rules back: %s", out)
	}
	client = w.client.start("client", w.mesh[0])
	w.connected(client)
	w.client.run("ping -c1 -W2 8.8.4.4")
	client.end(t, unix.SIGINT)
	_ = clientBefore

	server.end(t, unix.SIGTERM)
	if after := w.server.state(); after != serverBefore {
		t.Errorf("server's box:\n%s\nbefore:\n%s", after, serverBefore)
	}
	// SIGINT is not caught by the test's program: the next start cleans up, here one that is refused.
	server = w.server.start("closed", w.mesh[1])
	client = w.client.start("client", w.mesh[0])
	select {
	case <-client.done:
	case <-time.After(15 * time.Second):
		t.Fatal("a refused client goes on")
	}
	if out := client.log.String(); !strings.Contains(out, "does not allow your key") {
		t.Errorf("refused client says: %s", out)
	}
	if after := w.client.state(); after != clientBefore {
		t.Errorf("client's box:\n%s\nbefore:\n%s", after, clientBefore)
	}
	server.end(t, unix.SIGTERM)
}

// A device that somebody deletes or takes down ends the vpn, which takes the rest back; else it would lie there dead.
func TestDeviceTaken(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"ip link delete skywire0": "somebody deleted it", "ip link set skywire0 down": "was taken down",
	} {
		w := newWorld(t)
		before := w.client.state()
		w.server.start("server", w.mesh[1])
		client := w.client.start("client", w.mesh[0])
		w.connected(client)
		w.client.run(line)
		select {
		case <-client.done:
		case <-time.After(15 * time.Second):
			t.Fatalf("%s: the vpn goes on", line)
		}
		if out := client.log.String(); !strings.Contains(out, want) {
			t.Errorf("%s: no %q in %s", line, want, out)
		}
		if after := w.client.state(); after != before {
			t.Errorf("after %s:\n%s\nbefore:\n%s", line, after, before)
		}
	}
}
