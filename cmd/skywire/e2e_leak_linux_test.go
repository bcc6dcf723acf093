package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
)

// The world of the leak matrix: a has two ways to its provider r, which leads to two exits and to a web server. What a
// sends outside the tunnel would really arrive.
//
//	a ═wan═ r ─── b exit          r: the provider's router and resolver (10.1.0.1, 10.2.0.1)
//	a ═alt═ r ─── c exit          web: 198.51.100.1, 2001:db8:99::1
//	        └──── web
func leakWorld(t *testing.T, name string) *world {
	t.Helper()
	w := newWorld(t, name)
	w.boxes("a", "b", "c")
	w.plain("r", "web")
	w.must(
		w.lab.Wire(w.end("a", "wan", "10.1.0.2/24", "2001:db8:1::2/64 nodad"), w.end("r", "a1", "10.1.0.1/24", "2001:db8:1::1/64 nodad")),
		w.lab.Wire(w.end("a", "alt", "10.2.0.2/24", "2001:db8:2::2/64 nodad"), w.end("r", "a2", "10.2.0.1/24", "2001:db8:2::1/64 nodad")),
		w.lab.Wire(w.end("b", "wan", "10.3.0.2/24"), w.end("r", "b", "10.3.0.1/24")),
		w.lab.Wire(w.end("c", "wan", "10.4.0.2/24"), w.end("r", "c", "10.4.0.1/24")),
		w.lab.Wire(w.end("web", "eth0", "198.51.100.1/24", "2001:db8:99::1/64 nodad"), w.end("r", "web", "198.51.100.254/24", "2001:db8:99::ff/64 nodad")),
		w.box["r"].Forward(),
		w.box["web"].IP("route add default via 198.51.100.254"),
		w.box["b"].IP("route add default via 10.3.0.1"),
		w.box["c"].IP("route add default via 10.4.0.1"))
	w.leakRoutes()
	w.serve("web", "198.51.100.1:80")
	// Neighbours are known before anything is counted: what waits for a neighbour was routed before the tunnel stood, and
	// would leave after it.
	w.pings("a", "2001:db8:1::1")
	w.pings("a", "198.51.100.1")
	return w
}

// leakRoutes gives a its default routes, as a provider's DHCP would.
func (w *world) leakRoutes() {
	w.t.Helper()
	w.must(w.box["a"].IP("route replace default via 10.1.0.1 dev wan metric 10"), w.box["a"].IP("route replace default via 10.2.0.1 dev alt metric 20"),
		w.box["a"].IP("-6 route replace default via 2001:db8:1::1 dev wan metric 10"), w.box["a"].IP("-6 route replace default via 2001:db8:2::1 dev alt metric 20"))
}

func (w *world) leakNode(box string, peers ...string) {
	w.t.Helper()
	args := []string{"--no-lan"}
	for _, p := range peers {
		args = append(args, "--peer", p)
	}
	w.node(box, args...)
}

func (w *world) leakNodeA() {
	w.t.Helper()
	w.leakNode("a", w.peer("b", "10.3.0.2"), w.peer("c", "10.4.0.2"))
}

// babble sends all that a box sends unasked, all the time: to the internet in both families, UDP, TCP and ICMP; with all,
// also to the provider's resolver and by sockets bound to a device, which no route keeps in.
func (w *world) babble(box string, all bool) (stop func()) {
	w.t.Helper()
	var devices []string
	udp4, udp6 := []string{"9.9.9.9:53", "198.51.100.1:7"}, []string{"[2001:db8:99::1]:7"}
	if all {
		devices = []string{"wan", "alt"}
		udp4, udp6 = append(udp4, "10.1.0.1:53", "10.2.0.1:53"), append(udp6, "[2001:db8:1::1]:53")
	}
	var socks []func()
	udp := func(to, device, local string) {
		addr := netip.MustParseAddrPort(to)
		var pc net.PacketConn
		w.must(w.box[box].Enter(func() (err error) {
			pc, err = net.ListenPacket("udp", local)
			return err
		}))
		w.t.Cleanup(func() { _ = pc.Close() })
		if device != "" {
			raw, err := pc.(*net.UDPConn).SyscallConn()
			w.must(err)
			w.must(raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }), err)
		}
		socks = append(socks, func() { _, _ = pc.(*net.UDPConn).WriteToUDPAddrPort([]byte("a leak"), addr) })
	}
	for _, to := range udp4 {
		udp(to, "", "0.0.0.0:0")
		for _, d := range devices {
			udp(to, d, "0.0.0.0:0")
		}
	}
	udp("198.51.100.1:7", "", "10.1.0.2:0")
	for _, to := range udp6 {
		udp(to, "", "[::]:0")
		for _, d := range devices {
			udp(to, d, "[::]:0")
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(15 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for _, send := range socks {
				send()
			}
		}
	})
	p, err := w.box[box].Start("babble", "sh", "-c", "while :; do ping -c1 -W1 198.51.100.1; curl -s -m1 http://198.51.100.1/; ping -c1 -W1 2001:db8:99::1; sleep 0.1; done >/dev/null 2>&1")
	w.must(err)
	return sync.OnceFunc(func() { close(done); wg.Wait(); p.Kill() })
}

// tap counts what leaves a box by a device outside the tunnel, and keeps a word on the first few.
type tap struct {
	leaks, carrier, local atomic.Int64
	mu                    sync.Mutex // guards the fields below
	seen                  map[string]int
}

// tapDevice watches a device of a box from below, where a packet has passed all rules.
func (w *world) tapDevice(x *tap, box, device string) {
	w.t.Helper()
	fd := -1
	w.must(w.box[box].Enter(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	}))
	var ended atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		b := make([]byte, 2048)
		for !ended.Load() {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && ll.Pkttype == unix.PACKET_OUTGOING {
				x.judge(device, b[:n], binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, ll.Protocol)))
			}
		}
	})
	w.t.Cleanup(func() { ended.Store(true); all.Wait(); _ = unix.Close(fd) })
}

// judge tells the mesh's own packets (the node's port), those that a network needs, and leaks.
func (x *tap) judge(device string, p []byte, protocol uint16) {
	switch {
	case protocol == unix.ETH_P_ARP:
		x.local.Add(1)
		return
	case len(p) < 20:
		return
	case p[0]>>4 == 4:
		l4 := p[min(int(p[0]&15)*4, len(p)):]
		x.judgeIP(device, p[9], netip.AddrFrom4([4]byte(p[16:20])), l4)
	case p[0]>>4 == 6 && len(p) >= 40:
		next, l4 := p[6], p[40:]
		if next == 0 && len(l4) >= 8 { // hop-by-hop options: MLD
			next, l4 = l4[0], l4[8:]
		}
		x.judgeIP(device, next, netip.AddrFrom16([16]byte(p[24:40])), l4)
	}
}

// mapping are the ports by which a node asks its router to let neighbours in. The kill switch stops that, too.
var mapping = map[uint16]bool{5351: true, 1900: true}

func (x *tap) judgeIP(device string, protocol byte, to netip.Addr, l4 []byte) {
	switch {
	case protocol == unix.IPPROTO_UDP && len(l4) >= 4 && binary.BigEndian.Uint16(l4) == 4443:
		x.carrier.Add(1)
	case protocol == unix.IPPROTO_UDP && len(l4) >= 4 && mapping[binary.BigEndian.Uint16(l4[2:])]:
		x.local.Add(1)
	case protocol == unix.IPPROTO_ICMPV6 && len(l4) > 0 && (l4[0] >= 133 && l4[0] <= 136 || l4[0] == 143):
		x.local.Add(1)
	default:
		x.leaks.Add(1)
		x.mu.Lock()
		x.seen[fmt.Sprintf("protocol %d to %s by %s", protocol, to, device)]++
		x.mu.Unlock()
	}
}

// leakRow is one line of the matrix.
type leakRow struct {
	step           string
	leaks, carrier int64
	took           time.Duration
	what           string
}

// TestE2ELeaks is the leak matrix: what leaves the outer interfaces, seen from below, at every step of a vpn's life and
// death, with the kill switch and without.
func TestE2ELeaks(t *testing.T) {
	for _, c := range []struct {
		name string
		lock bool
	}{{"kill switch", true}, {"without", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := leakWorld(t, map[bool]string{true: "leak1", false: "leak0"}[c.lock])
			m := &leakMatrix{world: w, lock: c.lock}
			m.run()
			m.print(c.name)
		})
	}
}

type leakMatrix struct {
	*world
	lock bool
	tap  tap
	rows []leakRow
}

// during runs one step under the babble and notes what has leaked.
func (m *leakMatrix) during(step string, f func()) {
	m.t.Helper()
	leaks, carrier := m.tap.leaks.Load(), m.tap.carrier.Load()
	m.tap.mu.Lock()
	m.tap.seen = map[string]int{}
	m.tap.mu.Unlock()
	began := time.Now()
	f()
	took := time.Since(began)
	<-time.After(300 * time.Millisecond) // what still comes
	m.tap.mu.Lock()
	defer m.tap.mu.Unlock()
	var words []string
	for s, n := range m.tap.seen {
		if words = append(words, fmt.Sprintf("%d× %s", n, s)); len(words) == 4 {
			break
		}
	}
	m.rows = append(m.rows, leakRow{step, m.tap.leaks.Load() - leaks, m.tap.carrier.Load() - carrier, took, strings.Join(words, ", ")})
}

func (m *leakMatrix) client() {
	m.t.Helper()
	args := []string{"vpn", "client", "--server", m.key["b"], "--server", m.key["c"], "--exit"}
	if m.lock {
		args = append(args, "--kill-switch")
	}
	m.start("a", "vpn", args...)
}

// through waits until the web server answers through an exit.
func (m *leakMatrix) through(exit string) {
	m.t.Helper()
	m.wait("web through "+exit, func(ctx context.Context) error {
		out, err := m.box["a"].Exec(ctx, "curl", "-sS", "-m", "1", "http://198.51.100.1/")
		if err == nil && !strings.Contains(out, exit) {
			err = fmt.Errorf("got %q", out)
		}
		return m.alive(m.run2("a vpn"), err)
	})
}

func (m *leakMatrix) print(name string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:\n%-34s %8s %8s %8s\n", name, "step", "leaked", "carrier", "took")
	for _, r := range m.rows {
		fmt.Fprintf(&b, "%-34s %8d %8d %8s  %s\n", r.step, r.leaks, r.carrier, r.took.Round(10*time.Millisecond), r.what)
	}
	m.t.Log(b.String())
}

// run2 is the newest process of a name.
func (w *world) run2(name string) *lab.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.run[name]
}

const (
	throughB = "10.3.0.2"
	throughC = "10.4.0.2"
)

func (m *leakMatrix) server(box string) {
	m.t.Helper()
	m.leakNode(box)
	m.start(box, "vpn", "vpn", "server", "--exit", "--allow", m.key["a"])
}

func (m *leakMatrix) run() {
	m.t.Helper()
	m.server("b")
	m.server("c")
	if m.lock { // a start that finds no node locks and ends
		m.client()
		if code := m.run2("a vpn").ExitCode(); code != 3 {
			m.t.Errorf("vpn without a node: exit %d", code)
		}
		m.skywire("vpn", "killswitch", "show")
	}
	m.tapDevice(&m.tap, "a", "wan")
	m.tapDevice(&m.tap, "a", "alt")
	stop := m.babble("a", m.lock)
	defer func() { stop() }()
	m.during("connect", func() { m.leakNodeA(); m.client(); m.through(throughB) })
	m.during("connected", func() { <-time.After(time.Second) })
	m.during("exit dies, next one", func() {
		m.must(m.box["r"].IP("link set dev b down")) // as a power cut: nobody says goodbye
		began := time.Now()
		m.through(throughC)
		m.t.Logf("traffic through the next exit after %v", time.Since(began).Round(10*time.Millisecond))
	})
	m.must(m.box["r"].IP("link set dev b up"))
	m.deaths()
	m.during("interface down", func() {
		m.must(m.box["a"].IP("link set dev wan down"))
		m.through("10.")
	})
	m.during("interface up", func() {
		m.must(m.box["a"].IP("link set dev wan up"), m.box["a"].IP("-6 addr replace 2001:db8:1::2/64 nodad dev wan"))
		m.leakRoutes()
		m.through("10.")
	})
	m.during("suspend for 2 s", func() {
		for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			m.run2("a vpn").Signal(s)
			m.run2("a node").Signal(s)
			if s == syscall.SIGSTOP {
				<-time.After(2 * time.Second)
			}
		}
		m.through("10.")
	})
	m.during("vpn ends in peace", func() { m.must(m.run2("a vpn").Stop(patience)) })
	m.run2("a node").Kill()
	if m.lock {
		stop()
		m.reboot()
		stop = m.babble("a", true)
		m.during("rebooted, before any daemon", func() { <-time.After(500 * time.Millisecond) })
		m.during("connect after reboot", func() { m.leakNodeA(); m.client(); m.through("10.") })
		m.must(m.run2("a vpn").Stop(patience))
		m.during("released", func() { m.skywire("vpn", "release") })
	}
	m.check()
}

// deaths kills each daemon of the client's box and starts it again.
func (m *leakMatrix) deaths() {
	m.t.Helper()
	m.during("node killed -9", func() { m.run2("a node").Kill(); <-time.After(500 * time.Millisecond) })
	m.during("node back", func() { m.leakNodeA(); m.through("10.") })
	m.during("vpn killed -9", func() { m.run2("a vpn").Kill(); <-time.After(500 * time.Millisecond) })
	m.during("vpn back", func() { m.client(); m.through("10.") })
	m.during("both killed -9", func() {
		m.run2("a vpn").Kill()
		m.run2("a node").Kill()
		<-time.After(500 * time.Millisecond)
	})
	m.during("both back", func() { m.leakNodeA(); m.client(); m.through("10.") })
}

// reboot leaves of the box's network only what a boot makes, and locks it as an init script does.
func (m *leakMatrix) reboot() {
	m.t.Helper()
	m.exec("a", "sh", "-c", `nft flush ruleset
for f in -4 -6; do ip $f rule flush; for t in local:0 main:32766; do ip $f rule add pref ${t#*:} lookup ${t%:*}; done; ip $f route flush table 21334; done
ip -4 rule add pref 32767 lookup default; ip link del skywire0 2>/dev/null; rm -rf "$SKYWIRE_RUN"/*`)
	m.leakRoutes()
	m.skywire("vpn", "killswitch", "apply")
}

func (m *leakMatrix) skywire(args ...string) {
	m.t.Helper()
	_, err := m.box["a"].Skywire(m.t.Context(), args...)
	m.must(err)
}

// safeWithout are the steps at which nothing leaks even without a kill switch: a vpn process lives all the time.
var safeWithout = map[string]bool{"connected": true, "exit dies, next one": true, "suspend for 2 s": true}

func (m *leakMatrix) check() {
	m.t.Helper()
	for _, r := range m.rows {
		released := r.step == "released" || r.step == "vpn ends in peace" && !m.lock
		switch {
		case released && r.leaks == 0:
			m.t.Errorf("%s: nothing is seen to leave by the outer interfaces: this test sees nothing", r.step)
		case !released && (m.lock || safeWithout[r.step]) && r.leaks > 0:
			m.t.Errorf("%s: %d packets outside the tunnel: %s", r.step, r.leaks, r.what)
		}
	}
	if m.t.Failed() || m.tap.carrier.Load() == 0 {
		m.t.Errorf("%d packets of the mesh's own were seen", m.tap.carrier.Load())
	}
}
