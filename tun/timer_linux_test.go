package tun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link/udp"
	"skywire/mesh/session"
)

// timerChild says, in the process whose loops are kept busy, how many they are and where the flood comes from.
const timerChild = "SKYWIRE_TEST_TUN_TIMERS"

const timerLanes = 5

// TestTimersBesideLoops measures how late a 10 ms ticker is beside loops that have more to read from their TUN queues and
// sockets than they can: with one loop on one processor and with two on two. The budget is 2 ms at p99. Other programs on
// the machine make it later, so what is held against it is the processor time that the process took meanwhile.
func TestTimersBesideLoops(t *testing.T) {
	if s := os.Getenv(timerChild); s != "" {
		if err := besideLoops(t, s); err != nil {
			t.Error(err)
		}
		return
	}
	if testing.Short() {
		t.Skip("four seconds of load")
	}
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops), func(t *testing.T) { // not parallel: they take the whole machine
			inNamespace(t, func() error { return timersOf(t, loops) })
		})
	}
}

// timersOf starts the process with the loops, floods it and judges what it says.
func timersOf(t *testing.T, loops int) error {
	if err := runIP("link set lo up"); err != nil {
		return err
	}
	far, err := newTimerNode(t, 1, loops)
	if err != nil {
		return err
	}
	defer far.close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestTimersBesideLoops$", "-test.count=1")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d%s", timerChild, loops, far.ports()), fmt.Sprint("GOMAXPROCS=", loops))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	var line string
	if _, err := fmt.Fscanln(out, &line); err != nil {
		return errors.Join(fmt.Errorf("the process says nothing: %w", err), child.Wait())
	}
	far.meet(line)
	stop := make(chan struct{})
	var load sync.WaitGroup
	var flows [8]int
	for i := range flows {
		if flows[i], err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil { // in this thread's namespace
			return err
		}
		defer unix.Close(flows[i])
	}
	load.Go(func() { floodDevice(flows[:], far.plane.Address(), stop) })
	load.Go(func() { far.flood(stop) })
	var r timerResult
	_, err = fmt.Fscanln(out, &r.Ticks, &r.Out, &r.In, &r.P50, &r.P99, &r.Own50, &r.Own99)
	close(stop)
	load.Wait()
	if err = errors.Join(err, child.Wait()); err != nil {
		return err
	}
	t.Logf("%d loops: %d packets out, %d in, %d of 200 ticks; late p50 %v p99 %v, by own doing p50 %v p99 %v", loops, r.Out, r.In, r.Ticks, r.P50, r.P99, r.Own50, r.Own99)
	if r.Out < 2000 || r.In < 2000 || r.Own50 > 2*time.Millisecond || r.Own99 > 6*time.Millisecond {
		return fmt.Errorf("the loops starve the timers, or were not kept busy: %+v", r)
	}
	return nil
}

type timerResult struct {
	Ticks, Out, In         uint64
	P50, P99, Own50, Own99 time.Duration
}

// timerNode is one end of a link of so many ports: both ends make the same keys and labels.
type timerNode struct {
	plane   *forward.Plane
	link    *forward.Link
	sockets []*udp.Socket
}

func newTimerNode(t *testing.T, end, loops int) (*timerNode, error) {
	keys := [2]key.Public{chainKey(t, 1), chainKey(t, 2)}
	n := &timerNode{plane: forward.New(forward.Config{Network: key.Open(), Self: keys[end], Generation: 1, Loops: loops}, deaf{})}
	n.link = n.plane.NewLink(keys[1-end])
	n.link.SetKeys(&session.HopKey{1}, nil, &session.HopKey{1})
	n.link.SetMTU(1472, 1472)
	n.link.SetUp(true)
	label, err := n.plane.Alloc(timerLanes)
	if err != nil {
		return nil, err
	}
	aead, err := session.NewAEAD(session.ChaCha, [32]byte{1})
	if err != nil {
		return nil, err
	}
	peer := key.Open().Address(keys[1-end])
	s := n.plane.NewSession(keys[1-end], peer)
	s.SetSendKey(uint8(1+end), aead)
	s.SetRecvKey(uint8(2-end), aead)
	p := n.plane.NewPath(s, forward.PathConfig{
		Number: uint16(2 + end), First: n.link, OutBase: label, OutLanes: timerLanes, InLanes: timerLanes, MTU: 1472,
	})
	back := n.plane.NewPath(s, forward.PathConfig{
		Number: uint16(3 - end), First: n.link, OutBase: label, OutLanes: timerLanes, InLanes: timerLanes, MTU: 1472,
	})
	n.plane.InstallEnd(label, timerLanes, n.link, back)
	s.SetActive(p)
	n.plane.SetRoutes(&forward.Routes{Hosts: map[netip.Addr]*forward.Session{peer: s}})
	for range loops {
		s, err := udp.Listen(udp.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			return nil, err
		}
		n.sockets = append(n.sockets, s)
	}
	return n, nil
}

func (n *timerNode) close() {
	for _, s := range n.sockets {
		_ = s.Close()
	}
}

// ports are the sockets' addresses, each after a comma.
func (n *timerNode) ports() (list string) {
	for _, s := range n.sockets {
		list += "," + s.Addr().String()
	}
	return list
}

// meet takes the other end's ports.
func (n *timerNode) meet(list string) {
	var all []forward.Endpoint
	for i, a := range strings.Split(list, ",")[1:] {
		all = append(all, forward.Endpoint{Addr: netip.MustParseAddrPort(a), Socket: uint16(i)})
	}
	n.link.SetEndpoints(all...)
}

// Send implements forward.Output.
func (n *timerNode) Send(to forward.Endpoint, train []byte, seg int, ecn uint8) error {
	return n.sockets[to.Socket].Send(to.Addr, train, seg, ecn)
}

// flood sends sealed packets on all lanes as fast as it can.
func (n *timerNode) flood(stop chan struct{}) {
	var workers [2]*forward.Worker
	for i := range workers {
		workers[i] = n.plane.NewWorker(n)
	}
	p := make([]byte, 1400)
	p[0], p[6], p[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	binary.BigEndian.PutUint16(p[40:], 1000)
	binary.BigEndian.PutUint16(p[42:], 9)
	binary.BigEndian.PutUint16(p[44:], uint16(len(p)-40))
	keys := key.Open().Address(n.link.Peer).As16()
	own := n.plane.Address().As16()
	copy(p[8:], own[:])
	copy(p[24:], keys[:])
	kernelFill(p, 40, 6)
	for now := time.Duration(1); ; now += time.Microsecond {
		for _, w := range workers {
			for range 40 {
				w.Originate(now, p, false)
			}
			w.Flush()
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// floodDevice has the kernel route datagrams to the device as fast as it can.
func floodDevice(flows []int, to netip.Addr, stop chan struct{}) {
	at := &unix.SockaddrInet6{Port: 9, Addr: to.As16()}
	b := make([]byte, 1300)
	for {
		for _, fd := range flows {
			_ = unix.Sendto(fd, b, 0, at)
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// besideLoops runs the loops with a device and prints how its ticker was.
func besideLoops(t *testing.T, words string) error {
	loops := int(words[0] - '0')
	n, err := newTimerNode(t, 0, loops)
	if err != nil {
		return err
	}
	defer n.close()
	n.meet(words[1:])
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait, err := n.run(ctx, loops)
	if err != nil {
		return err
	}
	fmt.Println(n.ports())
	for c := n.plane.Counters(); c.OriginatedPackets == 0 || c.DeliveredPackets == 0; c = n.plane.Counters() {
		time.Sleep(time.Millisecond)
	}
	before := n.plane.Counters()
	late, own := tickers(loops)
	after := n.plane.Counters()
	fmt.Println(len(late), after.OriginatedPackets-before.OriginatedPackets, after.DeliveredPackets-before.DeliveredPackets,
		int64(late[len(late)/2]), int64(late[len(late)*99/100]), int64(own[len(own)/2]), int64(own[len(own)*99/100]))
	cancel()
	return wait()
}

// run starts the loops over a device with a queue for each.
func (n *timerNode) run(ctx context.Context, loops int) (wait func() error, err error) {
	c := Config{Name: "tptimer", Queues: loops}
	f, name, err := Create(c)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	ended := make(chan error, loops)
	var all []forward.Socket
	for _, s := range n.sockets {
		all = append(all, s)
	}
	for i := range loops {
		if i > 0 {
			if f, err = AddQueue(c, name); err != nil {
				return nil, err
			}
		}
		d, err := FromFile(f, 1400)
		if err != nil {
			return nil, err
		}
		poller, err := udp.NewPoller()
		if err != nil {
			return nil, err
		}
		l, err := forward.NewLoop(forward.LoopConfig{
			Plane: n.plane, Poller: poller, Number: i, Sockets: all, Own: []int{i}, Now: func() time.Duration { return time.Since(start) },
		})
		if err != nil {
			return nil, err
		}
		if err := l.Attach(d); err != nil {
			return nil, err
		}
		go func() { ended <- errors.Join(l.Run(ctx), d.Close()) }()
	}
	return func() (err error) {
			for range loops {
				err = errors.Join(err, <-ended)
			}
			return err
		}, runIP("link set tptimer up", "addr add "+n.plane.Address().String()+"/128 nodad dev tptimer",
			"route add "+key.Open().Address(n.link.Peer).String()+" dev tptimer")
}

// tickers returns how late 2 s of ticks were, sorted: by the clock, and by the processor time that the process took on each
// of its processors since the tick before.
func tickers(processors int) (late, own []time.Duration) {
	const every = 10 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	start, used := time.Now(), processorTime()
	for at := range tick.C {
		late = append(late, time.Since(at))
		now := processorTime()
		own = append(own, max(0, (now-used)/time.Duration(processors)-every))
		used = now
		if time.Since(start) > 2*time.Second {
			break
		}
	}
	slices.Sort(late)
	slices.Sort(own)
	return late, own
}

func processorTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
