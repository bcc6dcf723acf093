package tun

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link/udp"
	"skywire/mesh/session"
)

// end is one box of TestSlowLine: a device, a socket and the loop between them, in a network namespace of its own.
type end struct {
	plane  *forward.Plane
	key    key.Public
	socket *udp.Socket
	tun    Device
	loop   *forward.Loop
	do     chan func() error // run on a thread of the namespace
	did    chan error
	thread int
}

// newEnd starts the thread of a namespace.
func newEnd(t *testing.T, n byte) *end {
	t.Helper()
	e := &end{key: chainKey(t, n), do: make(chan func() error), did: make(chan error)}
	e.plane = forward.New(forward.Config{Network: key.Open(), Self: e.key, Generation: 1}, deaf{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		e.thread = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		e.did <- err
		for f := range e.do {
			e.did <- f()
		}
	}()
	t.Cleanup(func() { close(e.do) })
	if err := <-e.did; err != nil {
		t.Skip("no network namespace:", err)
	}
	return e
}

// in runs f in the end's namespace.
func (e *end) in(f func() error) error {
	e.do <- f
	return <-e.did
}

func run(lines ...string) error {
	for _, l := range lines {
		args := strings.Fields(l)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", l, err, out)
		}
	}
	return nil
}

// open makes the end's device and socket and starts its loop.
func (e *end) open(t *testing.T, addr string) error {
	f, _, err := Create(Config{Name: "tpslow"})
	if err != nil {
		return err
	}
	if e.tun, err = FromFile(f, 1400); err != nil {
		return err
	}
	if e.socket, err = udp.Listen(udp.Config{Addr: netip.MustParseAddrPort(addr + ":4000")}); err != nil {
		return err
	}
	poller, err := udp.NewPoller()
	if err != nil {
		return err
	}
	start := time.Now()
	e.loop, err = forward.NewLoop(forward.LoopConfig{
		Plane: e.plane, Poller: poller, Sockets: []forward.Socket{e.socket}, Now: func() time.Duration { return time.Since(start) },
	})
	if err != nil {
		return err
	}
	if err := e.loop.Attach(e.tun); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, e.tun.Close(), e.socket.Close()); err != nil {
			t.Error(err)
		}
	})
	return run("ip link set tpslow mtu 1400 txqueuelen 500 gso_max_size 60700 up",
		"ip addr add "+e.plane.Address().String()+"/128 nodad dev tpslow")
}

// meet lays a path of one link between two ends.
func meet(t *testing.T, ends [2]*end) error {
	t.Helper()
	aead, err := session.NewAEAD(session.ChaCha, [32]byte{1})
	if err != nil {
		return err
	}
	var labels [2]uint32
	for i, e := range ends {
		if labels[i], err = e.plane.Alloc(2); err != nil {
			return err
		}
	}
	for i, e := range ends {
		o := ends[1-i]
		l := e.plane.NewLink(o.key)
		l.SetEndpoint(forward.Endpoint{Addr: o.socket.Addr()})
		l.SetKeys(&session.HopKey{byte(1 - i)}, nil, &session.HopKey{byte(i)})
		l.SetMTU(1472, 1472)
		l.SetUp(true)
		s := e.plane.NewSession(o.key, o.plane.Address())
		s.SetSendKey(1, aead)
		s.SetRecvKey(1, aead)
		path := e.plane.NewPath(s, forward.PathConfig{Number: 2, First: l, OutBase: labels[1-i], OutLanes: 2, InLanes: 2, MTU: 1472})
		e.plane.InstallEnd(labels[i], 2, l, path)
		s.SetActive(path)
		e.plane.SetRoutes(&forward.Routes{Hosts: map[netip.Addr]*forward.Session{o.plane.Address(): s}})
		if err := e.in(func() error { return run("ip route add " + o.plane.Address().String() + " dev tpslow") }); err != nil {
			return err
		}
	}
	return nil
}

// TestSlowLine has a kernel's TCP send through two devices and a mesh over a line of 10 Mbit/s (tbf) whose queue is longer than any
// patience: the line stays full, and TCP's own measure of the round trip stays short, with and without ECN.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("five seconds of traffic")
	}
	for _, ecn := range []bool{false, true} {
		t.Run(fmt.Sprint("ecn=", ecn), func(t *testing.T) {
			t.Parallel()
			slowLine(t, ecn)
		})
	}
}

func slowLine(t *testing.T, ecn bool) {
	ends := [2]*end{newEnd(t, 1), newEnd(t, 2)}
	wire(t, ends, ecn)
	for i, e := range ends {
		if err := e.in(func() error { return e.open(t, fmt.Sprintf("10.77.0.%d", i+1)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := meet(t, ends); err != nil {
		t.Fatal(err)
	}
	l, c, err := connect(ends)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer c.Close()
	var n atomic.Int64
	got := make(chan error, 1)
	go func() { got <- count(l, &n) }()
	const long = 5 * time.Second
	var sum time.Duration
	asked := 0
	chunk := make([]byte, 16<<10)
	start := time.Now()
	for next := start.Add(long / 2); time.Since(start) < long; {
		if _, err := c.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(next) {
			next = time.Now().Add(100 * time.Millisecond)
			sum += rtt(t, c)
			asked++
		}
	}
	rate := float64(n.Load()) * 8 / time.Since(start).Seconds() / 1e6
	mean := sum / time.Duration(max(1, asked))
	counters := ends[0].plane.Counters()
	_ = c.Close()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f Mbit/s, smoothed round trip %v on average; marked %d, drops %v", rate, mean, counters.MarkedFrames, counters.Drops)
	// 200 ms without the backlog, on the machine where it is 45 with it; a busy one may be late.
	if mean > 300*time.Millisecond || rate < 5 {
		t.Error("want 300 ms and 5 Mbit/s")
	}
	if drops := counters.Drops; drops["socket_full"] > 0 || drops["backlog"] == 0 && counters.MarkedFrames == 0 {
		t.Error("the backlog did nothing")
	}
}

// wire joins the namespaces by a line of 10 Mbit/s in one direction.
func wire(t *testing.T, ends [2]*end, ecn bool) {
	t.Helper()
	mark := []byte("0")
	if ecn {
		mark = []byte("1")
	}
	a, b := ends[0], ends[1]
	if err := errors.Join(
		a.in(func() error {
			return errors.Join(os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", mark, 0o644),
				run(fmt.Sprintf("ip link add tpva type veth peer name tpvb netns %d", b.thread),
					"ip addr add 10.77.0.1/24 dev tpva", "ip link set tpva up",
					"tc qdisc add dev tpva root tbf rate 10mbit burst 20kb limit 8mb"))
		}),
		b.in(func() error {
			return errors.Join(os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", mark, 0o644),
				run("ip addr add 10.77.0.2/24 dev tpvb", "ip link set tpvb up"))
		}),
	); err != nil {
		t.Skip(err)
	}
}

// connect opens a TCP connection from the first end to the second, the second one on a listener that nobody has asked yet.
func connect(ends [2]*end) (l net.Listener, c net.Conn, err error) {
	a, b := ends[0], ends[1]
	at := netip.AddrPortFrom(b.plane.Address(), 9).String()
	if err := b.in(func() (err error) { l, err = net.Listen("tcp6", at); return err }); err != nil {
		return nil, nil, err
	}
	// Reno hears of every drop and mark; BBR, the default of some machines, of neither.
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
		return err
	}}
	err = a.in(func() (err error) {
		// A lost SYN would be sent again without ECN; the first one may be lost while the boxes look for each other.
		if c, err = d.Dial("tcp6", at); err == nil {
			_ = c.Close()
			c, err = d.Dial("tcp6", at)
		}
		return err
	})
	return l, c, err
}

// count reads the second connection to its end.
func count(l net.Listener, n *atomic.Int64) error {
	var c net.Conn
	for range 2 {
		var err error
		if c, err = l.Accept(); err != nil {
			return err
		}
		defer c.Close()
	}
	b := make([]byte, 65536)
	for {
		k, err := c.Read(b)
		if n.Add(int64(k)); err != nil {
			return nil //nolint:nilerr // the end
		}
	}
}

// rtt is what the kernel says of a connection.
func rtt(t *testing.T, c net.Conn) (d time.Duration) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) {
		var i *unix.TCPInfo
		if i, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			d = time.Duration(i.Rtt) * time.Microsecond
		}
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return d
}
