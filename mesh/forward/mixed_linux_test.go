package forward_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link/udp"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// BenchmarkRelayMixed has a relay take trains whose frames go out over one, two or four links by turns, and single
// datagrams that come one by one. The figure is the processor time of a frame, loopback's way to the other socket included.
func BenchmarkRelayMixed(b *testing.B) {
	for _, size := range []int{1400, 156} {
		for _, links := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("train/%d/%d", size, links), func(b *testing.B) { newMixed(b, links, size).run(b, mixedFrames) })
			b.Run(fmt.Sprintf("single/%d/%d", size, links), func(b *testing.B) { newMixed(b, links, size).run(b, 1) })
		}
	}
}

// mixedFrames is how many frames there are in a batch.
const mixedFrames = 40

// mixed is a relay's worker on a real socket, and the sockets behind its links.
type mixed struct {
	worker  *forward.Worker
	sinks   []*udp.Socket
	labels  []uint32
	in      session.HopKey
	batch   []byte
	size    int
	counter uint64
}

func newMixed(b *testing.B, links, size int) *mixed {
	b.Helper()
	listen := func() *udp.Socket {
		s, err := udp.Listen(udp.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return s
	}
	m := &mixed{size: size, batch: make([]byte, mixedFrames*size)}
	plane := forward.New(forward.Config{Network: key.Open()}, &silent{})
	m.worker = plane.NewWorker(sender{listen()})
	from := plane.NewLink(key.Public{})
	from.SetKeys(&m.in, nil, &m.in)
	for range links {
		s := listen()
		to := plane.NewLink(key.Public{})
		to.SetEndpoint(forward.Endpoint{Addr: s.Addr()})
		to.SetKeys(&m.in, nil, &m.in)
		to.SetUp(true)
		label, err := plane.Alloc(1)
		if err != nil {
			b.Fatal(err)
		}
		plane.InstallRelay(label, 1, forward.Relay{In: from, Out: to, OutBase: label})
		m.sinks, m.labels = append(m.sinks, s), append(m.labels, label)
	}
	return m
}

func (m *mixed) run(b *testing.B, train int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took time.Duration
	got, room := 0, make([]byte, 65536)
	b.ReportAllocs()
	for b.Loop() {
		for i := range mixedFrames {
			f := m.batch[i*m.size : (i+1)*m.size]
			m.counter++
			copy(f, wire.Header{Type: wire.TypeSealed, TTL: 32, Label: m.labels[i%len(m.labels)], Counter: m.counter}.Append(f[:0]))
			binary.BigEndian.PutUint64(f[16:], m.in.Tag(f[:16], m.size))
		}
		start := threadTime()
		for i := 0; i < mixedFrames; i += train {
			m.worker.Receive(time.Second, forward.Endpoint{}, m.batch[i*m.size:(i+train)*m.size], m.size, 0)
		}
		m.worker.Flush()
		took += threadTime() - start
		for _, s := range m.sinks {
			for a, err := s.Receive(room); err == nil; a, err = s.Receive(room) {
				got += a.N
			}
		}
	}
	if got != b.N*mixedFrames*m.size {
		b.Fatalf("%d bytes arrived of %d", got, b.N*mixedFrames*m.size)
	}
	b.ReportMetric(float64(took)/float64(b.N)/mixedFrames, "cpu-ns/frame")
}

// threadTime is the processor time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
