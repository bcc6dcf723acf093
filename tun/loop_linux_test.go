package tun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link/udp"
	"skywire/mesh/session"
)

// fullFor is how long TestQueueFull blocks the socket; set SKYWIRE_FULL_FOR to try longer.
const fullFor = time.Second

// half is one end of a socket pair that a loop takes for its UDP socket: it is full when nobody reads the other end.
type half struct{ fd int }

func (s half) FD() int { return s.fd }

func (s half) Receive(b []byte) (forward.Arrival, error) {
	n, err := unix.Read(s.fd, b)
	if err != nil {
		return forward.Arrival{}, err
	}
	return forward.Arrival{N: n, Seg: n, From: farEnd}, nil
}

func (s half) Send(_ netip.AddrPort, train []byte, seg int, _ uint8) error {
	for len(train) > 0 {
		n := min(seg, len(train))
		if _, err := unix.Write(s.fd, train[:n]); err != nil {
			return err
		}
		train = train[n:]
	}
	return nil
}

// trying is a half that can send without waiting, as a UDP socket does.
type trying struct{ half }

func (s trying) LimitSend(int) {}

func (s trying) TrySend(_ netip.AddrPort, train []byte, seg int, _ uint8) (n int, err error) {
	for n < len(train) {
		k := min(seg, len(train)-n)
		if _, err := unix.Write(s.fd, train[n:n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

var farEnd = netip.MustParseAddrPort("192.0.2.1:4000")

// countingPoller counts how often the loop woke up.
type countingPoller struct {
	forward.Poller
	n atomic.Int64
}

func (p *countingPoller) Wait() (int, error) {
	p.n.Add(1)
	return p.Poller.Wait()
}

// looped is a loop with a real device, and the worker of its neighbour.
type looped struct {
	plane  *forward.Plane
	loop   *forward.Loop
	poller countingPoller
	far    *forward.Worker
	farFD  int
	tun    Device
	name   string
	from   netip.Addr
	gone   chan error
	back   atomic.Int64 // packets that reached the neighbour
	stop   func() error
}

// reader is what the neighbour's worker delivers to.
type reader struct {
	memory
	n *atomic.Int64
}

func (r *reader) Send([]byte, bool) error { r.n.Add(1); return nil }

func (r *reader) Flush() error { return nil }

// newLooped must be called on a thread with a network namespace of its own.
func newLooped(t *testing.T, name string, socket func(half) forward.Socket) (*looped, error) {
	f, _, err := Create(Config{Name: name})
	if err != nil {
		return nil, err
	}
	l := &looped{name: name, gone: make(chan error, 1)}
	if l.tun, err = FromFile(f, 1400); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l.farFD = fds[1]
	if l.poller.Poller, err = udp.NewPoller(); err != nil {
		return nil, err
	}
	l.lay(t)
	start := time.Now()
	l.loop, err = forward.NewLoop(forward.LoopConfig{
		Plane: l.plane, Poller: &l.poller, Sockets: []forward.Socket{socket(half{fds[0]})},
		Now: func() time.Duration { return time.Since(start) }, Detached: func(_ forward.TUN, err error) { l.gone <- err },
	})
	if err != nil {
		return nil, err
	}
	if err := l.loop.Attach(l.tun); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.loop.Run(ctx) }()
	l.stop = func() error {
		cancel()
		return errors.Join(<-ended, l.tun.Close(), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return l, l.up()
}

// lay makes both planes and a path of one link between them.
func (l *looped) lay(t *testing.T) {
	t.Helper()
	var planes [2]*forward.Plane
	var links [2]*forward.Link
	var labels [2]uint32
	keys := [2]key.Public{chainKey(t, 1), chainKey(t, 2)}
	for i := range planes {
		planes[i] = forward.New(forward.Config{Network: key.Open(), Self: keys[i], Generation: 1}, deaf{})
		links[i] = planes[i].NewLink(keys[1-i])
		links[i].SetEndpoint(forward.Endpoint{Addr: farEnd})
		links[i].SetKeys(&session.HopKey{byte(1 - i)}, nil, &session.HopKey{byte(i)})
		links[i].SetMTU(1472, 1472)
		links[i].SetUp(true)
		var err error
		if labels[i], err = planes[i].Alloc(2); err != nil {
			t.Fatal(err)
		}
	}
	aead, err := session.NewAEAD(session.ChaCha, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range planes {
		s := p.NewSession(keys[1-i], planes[1-i].Address())
		s.SetSendKey(1, aead)
		s.SetRecvKey(1, aead)
		path := p.NewPath(s, forward.PathConfig{Number: uint16(2), First: links[i], OutBase: labels[1-i], OutLanes: 2, InLanes: 2, MTU: 1472})
		p.InstallEnd(labels[i], 2, links[i], path)
		s.SetActive(path)
		p.SetRoutes(&forward.Routes{Hosts: map[netip.Addr]*forward.Session{planes[1-i].Address(): s}})
	}
	l.far = planes[0].NewWorker(sendFunc(func(train []byte, seg int) { _ = half{l.farFD}.Send(farEnd, train, seg, 0) }))
	l.far.SetTUN(&reader{n: &l.back})
	l.from, l.plane = planes[0].Address(), planes[1]
}

// up takes the device up; addresses and routes go each time it goes down.
func (l *looped) up() error {
	return runIP("link set "+l.name+" up", "addr replace "+l.plane.Address().String()+"/128 nodad dev "+l.name,
		"route replace "+l.from.String()+" dev "+l.name)
}

func runIP(lines ...string) error {
	for _, s := range lines {
		if out, err := exec.Command("ip", strings.Fields(s)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", s, err, out)
		}
	}
	return nil
}

// echo asks the kernel behind the device for an answer of n bytes, and takes what has come back.
func (l *looped) echo(now time.Duration, n int) {
	p := make([]byte, 48+n)
	p[0], p[6], p[7], p[40] = 0x60, 58, 64, 128
	put16(p, 4, uint16(8+n))
	copy(p[8:], l.from.AsSlice())
	copy(p[24:], l.plane.Address().AsSlice())
	put16(p, 42, kernelPseudo(p, 58, 40))
	kernelFill(p, 40, 2)
	l.far.Originate(now, p, false)
	l.far.Flush()
	l.take(now)
}

func (l *looped) take(now time.Duration) {
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(l.farFD, b)
		if err != nil {
			return
		}
		l.far.Receive(now, forward.Endpoint{Addr: farEnd}, b[:n], n, 0)
		l.far.Flush()
	}
}

// answers asks until an answer comes.
func (l *looped) answers(when string) error {
	was, end := l.back.Load(), time.Now().Add(10*time.Second)
	for now := time.Hour; l.back.Load() == was; now++ {
		if time.Now().After(end) {
			return fmt.Errorf("%s: no answer; drops %v", when, l.plane.Counters().Drops)
		}
		l.echo(now, 1000)
		runtime.Gosched()
	}
	return nil
}

// TestDeviceFlapsAndDies takes the device of a running loop down and up under traffic, then deletes it. Down, the kernel
// answers a write with EIO ("write /dev/net/tun: input/output error"): the packet is dropped and counted, the loop goes on.
func TestDeviceFlapsAndDies(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() (err error) {
		l, err := newLooped(t, "tpflap", func(h half) forward.Socket { return trying{h} })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
		if err := l.answers("at first"); err != nil {
			return err
		}
		var traffic sync.WaitGroup
		var quiet atomic.Bool
		traffic.Go(func() {
			for now := time.Second; !quiet.Load(); now += time.Microsecond {
				l.echo(now, 1000)
			}
		})
		for range 20 {
			if err = errors.Join(runIP("link set tpflap down"), l.up()); err != nil {
				break
			}
		}
		quiet.Store(true)
		traffic.Wait()
		if err == nil {
			err = l.answers("after 20 times down and up")
		}
		drops := l.plane.Counters().Drops
		t.Logf("answers %d, drops %v", l.back.Load(), drops)
		if err != nil || len(l.gone) != 0 || drops["tun"] == 0 {
			return fmt.Errorf("flapping: %w, detached %v, drops %v", err, len(l.gone) != 0, drops)
		}
		if err := runIP("link delete tpflap"); err != nil {
			return err
		}
		select {
		case err := <-l.gone:
			t.Log("deleted:", err)
			if !errors.Is(err, unix.EBADFD) && !errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("deleted: %w", err)
			}
		case <-time.After(10 * time.Second):
			return errors.New("the loop does not miss its device")
		}
		return l.idle()
	})
}

// idle checks that the loop lives, says where packets go, and sleeps when there are none.
func (l *looped) idle() error {
	l.echo(2*time.Hour, 100)
	done := make(chan bool)
	if err := l.loop.Post(func(*forward.Worker) { close(done) }); err != nil {
		return err
	}
	<-done
	for end := time.Now().Add(10 * time.Second); l.plane.Counters().Drops["no_tun"] == 0; runtime.Gosched() {
		if time.Now().After(end) {
			return fmt.Errorf("drops %v, want no_tun", l.plane.Counters().Drops)
		}
	}
	was := l.poller.n.Load()
	time.Sleep(200 * time.Millisecond)
	if n := l.poller.n.Load() - was; n > 5 {
		return fmt.Errorf("an idle loop woke up %d times in 200 ms", n)
	}
	return nil
}

// TestQueueFull has the kernel send into a device whose loop has nowhere to send: the loop leaves the queue to the kernel,
// which drops, and neither spins nor grows; with room, packets flow again.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		socket func(half) forward.Socket
		drop   string
	}{
		{"dropping", func(h half) forward.Socket { return h }, "socket_full"},
		{"waiting", func(h half) forward.Socket { return trying{h} }, "backlog"}, // too old in the end
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queueFull(t, tt.socket, tt.drop)
		})
	}
}

func queueFull(t *testing.T, socket func(half) forward.Socket, drop string) {
	long := fullFor
	if s := os.Getenv("SKYWIRE_FULL_FOR"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	inNamespace(t, func() (err error) {
		l, err := newLooped(t, "tpfull", socket)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
		if err := l.answers("at first"); err != nil {
			return err
		}
		c, err := net.Dial("udp", netip.AddrPortFrom(l.from, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 1300)
		send := func(d time.Duration) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); n++ {
				binary.BigEndian.PutUint32(b, uint32(n))
				_, _ = c.Write(b)
			}
			return n
		}
		send(100 * time.Millisecond)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		woke := l.poller.n.Load()
		sent := send(long)
		woke = l.poller.n.Load() - woke
		runtime.ReadMemStats(&after)
		drops := l.plane.Counters().Drops
		t.Logf("%d packets written in %v, the loop woke up %d times, drops %v, heap %d → %d kB, total %d kB",
			sent, long, woke, drops, before.HeapAlloc>>10, after.HeapAlloc>>10, (after.TotalAlloc-before.TotalAlloc)>>10)
		if woke > int64(long/time.Millisecond) {
			return fmt.Errorf("the loop woke up %d times", woke)
		}
		l.take(time.Hour)
		if err := l.answers("with room again"); err != nil {
			return err
		}
		if drops = l.plane.Counters().Drops; drops[drop] == 0 {
			return fmt.Errorf("drops %v, want %s", drops, drop)
		}
		return nil
	})
}
