//go:build bench

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
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
	"skywire/mesh/wire"
)

// TestBenchRelay compares a relay with the kernel's IP forwarding: datagrams of 1,400 bytes from one box over a second
// to a third, as fast as the sender can. The relay is the node's own loop, socket and plane, without what surrounds them.
//
//	trains    veth carries what UDP_SEGMENT made as one piece: best for the kernel, which looks at 64 KB at once
//	single    trains are cut when they leave and joined when they arrive, as on a network card without offload
//	one       the sender sends datagram by datagram: the worst case
func TestBenchRelay(t *testing.T) {
	rounds, seconds := setting("SKYWIRE_BENCH_ROUNDS", 3), setting("SKYWIRE_BENCH_SECONDS", 1)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // sender, relay and sink, and the kernel divides
	w := newWorld(t, "relay")
	w.plain("s", "r", "d")
	w.must(
		w.lab.Wire(w.end("s", "wire", "10.1.0.1/24"), w.end("r", "left", "10.1.0.2/24")),
		w.lab.Wire(w.end("r", "right", "10.2.0.2/24"), w.end("d", "wire", "10.2.0.1/24")),
		w.box["r"].Forward(),
		w.box["s"].IP("route add 10.2.0.0/24 via 10.1.0.2"), w.box["d"].IP("route add 10.1.0.0/24 via 10.2.0.2"),
	)
	b := w.relayBench()
	results := map[string][]float64{}
	var md strings.Builder
	md.WriteString("| packets | kernel, kpackets/s | relay, kpackets/s | ratio |\n| --- | --- | --- | --- |\n")
	for _, kind := range []string{"trains", "single", "one"} {
		if kind == "single" {
			w.noOffload("s wire", "r left", "r right", "d wire")
		}
		train := 45
		if kind == "one" {
			train = 1
		}
		for range rounds {
			kernel := b.run(b.sink.Addr(), train, seconds)
			relay := b.run(netip.MustParseAddrPort("10.1.0.2:4443"), train, seconds)
			results[kind+" kernel"] = append(results[kind+" kernel"], kernel/1e3)
			results[kind+" relay"] = append(results[kind+" relay"], relay/1e3)
			results[kind+" ratio"] = append(results[kind+" ratio"], relay/kernel)
		}
		fmt.Fprintf(&md, "| %s | %s | %s | %s |\n", kind,
			spread(results[kind+" kernel"]), spread(results[kind+" relay"]), spread(results[kind+" ratio"]))
	}
	now := sceneNow(rounds, seconds)
	w.keep("forwarding", fmt.Sprintf("### forwarding\n\n%s Wanted: ≥ 0.9.\n\n%s\nThe relay dropped %v.\n\n", now, md.String(),
		b.plane.Counters().Drops), struct {
		scene
		Results map[string][]float64 `json:"results"`
	}{now, results})
}

type relayBench struct {
	t                   testing.TB
	sender, relay, sink *udp.Socket
	plane               *forward.Plane
	label               uint32
	hop                 session.HopKey
	counter             uint64
	received            atomic.Uint64
}

// relayBench opens the three sockets and starts the relay's loop and the sink.
func (w *world) relayBench() *relayBench {
	w.t.Helper()
	b := &relayBench{t: w.t, hop: session.HopKey{1}}
	listen := func(box, addr string) (s *udp.Socket) {
		w.must(w.box[box].Enter(func() (err error) {
			s, err = udp.Listen(udp.Config{Addr: netip.MustParseAddrPort(addr)})
			return err
		}))
		return s
	}
	b.sender, b.sink = listen("s", "10.1.0.1:4443"), listen("d", "10.2.0.1:4443")
	b.relay = listen("r", "0.0.0.0:4443")
	b.plane = forward.New(forward.Config{Network: key.Open()}, mute{})
	link := func(to *udp.Socket) *forward.Link {
		l := b.plane.NewLink(key.Public{})
		l.SetEndpoint(forward.Endpoint{Addr: to.Addr()})
		l.SetKeys(&b.hop, nil, &b.hop)
		l.SetMTU(1472, 1472)
		l.SetUp(true)
		return l
	}
	var err error
	b.label, err = b.plane.Alloc(1)
	w.must(err)
	b.plane.InstallRelay(b.label, 1, forward.Relay{In: link(b.sender), Out: link(b.sink), OutBase: 7})
	poller, err := udp.NewPoller()
	w.must(err)
	start := time.Now()
	loop, err := forward.NewLoop(forward.LoopConfig{
		Plane: b.plane, Poller: poller, Sockets: []forward.Socket{b.relay},
		Now: func() time.Duration { return time.Since(start) },
	})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = loop.Run(ctx) })
	work.Go(func() { b.swallow(ctx) })
	w.t.Cleanup(func() {
		cancel()
		work.Wait()
		_, _, _ = b.sender.Close(), b.relay.Close(), b.sink.Close()
	})
	return b
}

// swallow counts what reaches the sink.
func (b *relayBench) swallow(ctx context.Context) {
	buf := make([]byte, 1<<16)
	for ctx.Err() == nil {
		a, err := b.sink.Receive(buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			p := [1]unix.PollFd{{Fd: int32(b.sink.FD()), Events: unix.POLLIN}}
			_, _ = unix.Poll(p[:], 50)
		case err == nil && a.Seg > 0:
			b.received.Add(uint64((a.N + a.Seg - 1) / a.Seg))
		}
	}
}

// run sends to an address for some seconds and returns the packets a second that reached the sink.
func (b *relayBench) run(to netip.AddrPort, train, seconds int) float64 {
	const size = 1400
	buf := make([]byte, train*size)
	before, start := b.received.Load(), time.Now()
	for time.Since(start) < time.Duration(seconds)*time.Second {
		for i := range train {
			f := buf[i*size : (i+1)*size]
			f[0], f[1], f[2], f[3] = wire.TypeSealed, 1, wire.MaxTTL, 0
			binary.BigEndian.PutUint32(f[4:], b.label)
			binary.BigEndian.PutUint64(f[8:], b.counter)
			b.counter++
			binary.BigEndian.PutUint64(f[16:], b.hop.Tag(f[:16], size))
		}
		if err := b.sender.Send(to, buf, size, 0); err != nil && !errors.Is(err, unix.EAGAIN) {
			b.t.Fatal(err)
		}
	}
	took := time.Since(start).Seconds()
	n := b.received.Load() - before
	for last := b.received.Load(); ; last = b.received.Load() { // what is under way belongs to this run
		_, _ = unix.Poll(nil, 30)
		if b.received.Load() == last {
			break
		}
	}
	return float64(n) / took
}

// mute takes what a plane hands up.
type mute struct{}

func (mute) Datagram(time.Duration, forward.Endpoint, []byte)                      {}
func (mute) Control(time.Duration, *forward.Path, []byte)                          {}
func (mute) QUIC(*forward.Session, []byte, int)                                    {}
func (mute) Unrouted(time.Duration, []byte)                                        {}
func (mute) NoLabel(time.Duration, forward.Endpoint, []byte)                       {}
func (mute) TooBig(time.Duration, *forward.Relay, *forward.Link, uint32, int, int) {}
