package stream

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"
)

// messages are what quic-go reads into.
func messages(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, maxPacket)}
	}
	return ms
}

// TestRingModel puts and gets at random and compares with a plain queue.
func TestRingModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	r := newRing(8000)
	from := udpAddr(netip.IPv6Loopback())
	ms := messages(8)
	var model [][]byte
	dropped := 0
	for step := range 20000 {
		if rng.IntN(2) == 0 {
			seg := 1 + rng.IntN(maxPacket)
			train := make([]byte, 1+rng.IntN(4*seg))
			for i := range train {
				train[i] = byte(step + i)
			}
			if !r.put(from, train, seg) {
				dropped++
				continue
			}
			for rest := train; len(rest) > 0; rest = rest[min(seg, len(rest)):] {
				model = append(model, rest[:min(seg, len(rest))])
			}
			continue
		}
		if len(model) == 0 {
			continue
		}
		n, err := r.get(ms[:1+rng.IntN(8)])
		if err != nil || n > len(model) {
			t.Fatalf("step %d: %d packets of %d, %v", step, n, len(model), err)
		}
		for i := range n {
			if got := ms[i].Buffers[0][:ms[i].N]; !bytes.Equal(got, model[i]) {
				t.Fatalf("step %d: packet of %d bytes, want %d", step, len(got), len(model[i]))
			}
		}
		model = model[n:]
	}
	if dropped == 0 || dropped > 9000 {
		t.Errorf("%d trains dropped: the test does not test what it should", dropped)
	}
}

func TestRingDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRing(1000)
		ms := messages(1)
		r.setDeadline(time.Now().Add(time.Second))
		if _, err := r.get(ms); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		r.setDeadline(time.Time{})
		time.AfterFunc(time.Second, r.close)
		if _, err := r.get(ms); !errors.Is(err, net.ErrClosed) {
			t.Errorf("close: %v", err)
		}
		if r.put(udpAddr(netip.IPv6Loopback()), []byte{1}, 1) {
			t.Error("put after close")
		}
	})
}
