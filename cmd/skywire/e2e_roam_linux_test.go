package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// roamLimit is how long a transfer may stand still because an address changed.
const roamLimit = time.Second

// TestE2ERoaming: a box that moves from one address, route and interface to another keeps its sessions; neither a flow of packets
// nor a TCP connection through the vpn stands still for a second, and not a byte is lost. It has the machine for itself: the second is
// the point.
func TestE2ERoaming(t *testing.T) {
	w := newWorld(t, "roam")
	w.plain("net")
	w.boxes("a", "b")
	w.must(
		w.lab.Wire(w.end("a", "eth0", "10.1.0.2/24"), w.end("net", "aeth", "10.1.0.1/24")),
		w.lab.Wire(w.end("a", "wlan0", "10.2.0.2/24"), w.end("net", "awlan", "10.2.0.1/24")),
		w.lab.Wire(w.end("b", "eth0", "10.3.0.2/24"), w.end("net", "beth", "10.3.0.1/24")),
		w.box["net"].Forward(), w.box["b"].IP("route add default via 10.3.0.1"),
		w.box["a"].IP("route add default via 10.1.0.1 dev eth0 metric 100"),
		w.box["a"].IP("route add default via 10.2.0.1 dev wlan0 metric 200"))
	w.node("b")
	w.node("a", "--peer", w.peer("b", "10.3.0.2"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	w.pings("a", w.address("b"))
	there, back := w.flow("a", "b"), w.flow("b", "a")
	transfer := w.transfer("a", "b")
	for _, c := range []struct{ name, line, at string }{
		{"address swapped", "ip addr flush dev eth0; ip addr add 10.1.0.77/24 dev eth0; ip route add default via 10.1.0.1 dev eth0 metric 100", "10.1.0.77"},
		{"default route moved", "ip route add default via 10.2.0.1 dev wlan0 metric 50", "10.2.0.2"},
		{"interface down", "ip link set wlan0 down", "10.1.0.77"},
		{"interface up again", "ip link set wlan0 up; ip route add default via 10.2.0.1 dev wlan0 metric 50", "10.2.0.2"},
	} {
		there.reset()
		back.reset()
		w.exec("a", "sh", "-c", c.line)
		w.wait(c.name+": b follows to "+c.at, func(ctx context.Context) error {
			var peers []struct{ Endpoint string }
			if err := w.box["b"].SkywireJSON(ctx, &peers, "node", "peers"); err != nil {
				return err
			}
			for _, p := range peers {
				if host, _, _ := net.SplitHostPort(strings.TrimPrefix(p.Endpoint, "udp://")); host == c.at || host == "::ffff:"+c.at {
					return nil
				}
			}
			return fmt.Errorf("%v", peers)
		})
		w.wait(c.name+": packets both ways", func(context.Context) error {
			if there.fresh() && back.fresh() {
				return nil
			}
			return errors.New("none")
		})
		gapThere, gapBack := there.gap(), back.gap()
		t.Logf("%s: longest gap %v there, %v back", c.name, gapThere.Round(time.Millisecond), gapBack.Round(time.Millisecond))
		if max(gapThere, gapBack) > roamLimit {
			t.Errorf("%s: longer than %v", c.name, roamLimit)
		}
		if err := transfer.moves(w); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	transfer.finish(t)
	for _, box := range []string{"a", "b"} {
		if p := w.run[box+" node"]; bytes.Contains([]byte(p.Output()), []byte("link down")) {
			t.Errorf("%s lost its link", box)
		}
	}
	w.stopAll("vpn", "node")
}

// flow is a stream of packets, one each flowEvery, from one box to another over the vpn.
type flow struct {
	mu      sync.Mutex
	last    time.Time     // when the last one came
	longest time.Duration // without any
	since   time.Time
}

const flowEvery = 5 * time.Millisecond

// flow starts one that lasts as long as the test.
func (w *world) flow(from, to string) *flow {
	w.t.Helper()
	var in *net.UDPConn
	w.must(w.box[to].Enter(func() (err error) {
		in, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(w.address(to))})
		return err
	}))
	out := w.udp(from, in.LocalAddr().String())
	f := &flow{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	w.t.Cleanup(func() { cancel(); _ = in.Close(); wg.Wait() })
	wg.Go(func() {
		ticks := time.NewTicker(flowEvery)
		defer ticks.Stop()
		b := make([]byte, 200)
		for n := uint64(0); ctx.Err() == nil; n++ {
			binary.BigEndian.PutUint64(b, n)
			_, _ = out.Write(b) // while there is no route it fails
			<-ticks.C
		}
	})
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			if _, err := in.Read(b); err != nil {
				return
			}
			f.mu.Lock()
			now := time.Now()
			if !f.last.IsZero() {
				f.longest = max(f.longest, now.Sub(f.last))
			}
			f.last = now
			f.mu.Unlock()
		}
	})
	w.wait("flow from "+from, func(context.Context) error {
		if !f.fresh() {
			return errors.New("no packet")
		}
		return nil
	})
	return f
}

func (f *flow) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest, f.since = 0, time.Now()
}

// fresh reports whether a packet came since the last reset, a moment ago.
func (f *flow) fresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last.After(f.since) && time.Since(f.last) < 20*flowEvery
}

func (f *flow) gap() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.longest
}

// transfer is a TCP connection over the vpn that sends without pause.
type transfer struct {
	mu   sync.Mutex
	got  int64
	stop chan struct{}
	sent chan error // how sending ended
	done chan error // how all ended
}

// transfer starts one; what arrives must be what was sent.
func (w *world) transfer(from, to string) *transfer {
	w.t.Helper()
	addr := net.JoinHostPort(w.address(to), "7001")
	l := w.listen(to, addr)
	c := w.dial(from, addr, 1)[0]
	in, err := l.Accept()
	w.must(err)
	w.t.Cleanup(func() { _ = in.Close() })
	x := &transfer{stop: make(chan struct{}), sent: make(chan error, 1), done: make(chan error, 1)}
	out, got := sha256.New(), sha256.New()
	go func() { // ends with the connection, which the test closes
		b := make([]byte, 16<<10)
		for n := uint64(0); ; n++ {
			select {
			case <-x.stop:
				x.sent <- c.(*net.TCPConn).CloseWrite()
				return
			default:
			}
			binary.BigEndian.PutUint64(b, n)
			_, _ = out.Write(b)
			if _, err := c.Write(b); err != nil {
				x.sent <- fmt.Errorf("sending: %w", err)
				return
			}
			time.Sleep(time.Millisecond) // some megabytes a second: two cores carry all else too
		}
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := in.Read(b)
			_, _ = got.Write(b[:n])
			x.mu.Lock()
			x.got += int64(n)
			x.mu.Unlock()
			if errors.Is(err, io.EOF) {
				err = <-x.sent
				if err == nil && !bytes.Equal(out.Sum(nil), got.Sum(nil)) {
					err = errors.New("what arrived is not what was sent")
				}
				x.done <- err
				return
			}
			if err != nil {
				x.done <- fmt.Errorf("receiving: %w", err)
				return
			}
		}
	}()
	return x
}

func (x *transfer) bytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.got
}

// moves waits until bytes flow again.
func (x *transfer) moves(w *world) error {
	had := x.bytes()
	w.wait("the transfer goes on", func(context.Context) error {
		if x.bytes() < had+1<<18 {
			return fmt.Errorf("%d bytes since", x.bytes()-had)
		}
		return nil
	})
	return nil
}

// finish ends the transfer and compares.
func (x *transfer) finish(t *testing.T) {
	t.Helper()
	close(x.stop)
	if err := <-x.done; err != nil {
		t.Error(err)
	}
	t.Logf("%.1f MB in one connection", float64(x.bytes())/1e6)
}
