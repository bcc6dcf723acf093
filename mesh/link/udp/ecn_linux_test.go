package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
)

// TestECN sends trains with every field and every way of sending and receiving, IPv4 to dual-stack sockets too.
func TestECN(t *testing.T) {
	t.Parallel()
	for _, addr := range []struct{ tx, rx string }{
		{"127.0.0.1:0", "127.0.0.1:0"}, {"[::1]:0", "[::1]:0"}, {"127.0.0.1:0", "[::]:0"}, {"[::]:0", "127.0.0.1:0"}, {"[::]:0", "[::1]:0"},
	} {
		for _, plain := range []bool{false, true} {
			for ecn := range uint8(4) {
				t.Run(fmt.Sprintf("%s/%s/%v/%d", addr.tx, addr.rx, plain, ecn), func(t *testing.T) {
					t.Parallel()
					tx, rx := listenTest(t, addr.tx, plain), listenTest(t, addr.rx, plain)
					if !tx.Info().ECN || !rx.Info().ECN {
						t.Fatal("this kernel tells no ECN field")
					}
					to := rx.Addr()
					if to.Addr().IsUnspecified() {
						to = netip.AddrPortFrom(tx.Addr().Addr(), to.Port())
					}
					train := testTrain(5, 1000, 700)
					if err := tx.Send(to, train, 1000, ecn); err != nil {
						t.Fatal(err)
					}
					if err := tx.Send(to, []byte("single"), 6, ecn); err != nil {
						t.Fatal(err)
					}
					for got := 0; got < len(train)+6; {
						a := receiveTest(t, rx)
						if a.ECN != ecn {
							t.Fatalf("got field %d, want %d", a.ECN, ecn)
						}
						got += a.N
					}
				})
			}
		}
	}
}

// receiveTest waits for the next arrival.
func receiveTest(t *testing.T, s *Socket) forward.Arrival {
	t.Helper()
	b := make([]byte, 65536)
	for {
		a, err := s.Receive(b)
		if err == nil {
			return a
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		if err := s.wait(); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// TestInbox checks how datagrams that waited together are put into trains, and that none waits unseen.
func TestInbox(t *testing.T) {
	t.Parallel()
	a, b := listenTest(t, "127.0.0.1:0", true), listenTest(t, "127.0.0.1:0", true)
	rx := listenTest(t, "127.0.0.1:0", true)
	send := func(s *Socket, size int, ecn uint8) {
		t.Helper()
		if err := s.Send(rx.Addr(), bytes.Repeat([]byte{byte(size)}, size), size, ecn); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		from *Socket
		size int
		ecn  uint8
	}{
		{a, 100, 0}, {a, 100, 0}, {a, 40, 0}, {a, 40, 0}, // a short one ends a train
		{b, 40, 0},             // another source
		{b, 50, 0},             // a longer one
		{b, 50, 2}, {b, 50, 2}, // another field
		{a, 0, 0}, {a, 20000, 0}, {a, 60, 0}, // nothing, more than a slot holds
	} {
		send(x.from, x.size, x.ecn)
		if x.size == 0 { // Send has no use for it, but somebody may
			if err := unix.Sendto(x.from.FD(), nil, 0, &unix.SockaddrInet4{Port: int(rx.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Add(3, rx); err != nil {
		t.Fatal(err)
	}
	var got []string
	room := make([]byte, 65536)
	for range 8 {
		// Each wait must show the socket, though its queue in the kernel is empty after the first call.
		n, err := p.Wait()
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		for i := range n {
			id, read, _, _ := p.Event(i)
			seen = seen || id == 3 && read
		}
		if !seen {
			t.Fatal("datagrams wait, and the poller does not say so")
		}
		x, err := rx.Receive(room)
		if err != nil {
			got = append(got, err.Error())
			continue
		}
		name := map[netip.AddrPort]string{a.Addr(): "a", b.Addr(): "b"}[x.From]
		got = append(got, fmt.Sprintf("%s %d/%d ecn %d", name, x.N, x.Seg, x.ECN))
	}
	want := []string{
		"a 240/100 ecn 0", "a 40/40 ecn 0", "b 40/40 ecn 0", "b 50/50 ecn 0", "b 100/50 ecn 2", "a 0/0 ecn 0", ErrTruncated.Error(), "a 60/60 ecn 0",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if rx.waiting() || p.forever() != -1 {
		t.Error("something is left")
	}
	if err := p.Remove(rx); err != nil || len(p.inboxes) != 0 {
		t.Errorf("remove: %v", err)
	}
}

// TestControlBytes compares what is built with what the kernel's documents say, in this machine's byte order.
func TestControlBytes(t *testing.T) {
	t.Parallel()
	order, word := binary.NativeEndian, int(unsafe.Sizeof(uintptr(0)))
	pad := func(b []byte) []byte {
		for len(b)%word != 0 {
			b = append(b, 0)
		}
		return b
	}
	head := func(b []byte, n int, level, kind uint32) []byte {
		n += word + 8
		if word == 8 {
			b = order.AppendUint64(b, uint64(n))
		} else {
			b = order.AppendUint32(b, uint32(n))
		}
		return order.AppendUint32(order.AppendUint32(b, level), kind)
	}
	segment := pad(order.AppendUint16(head(nil, 2, 17, 103), 0x0578)) // SOL_UDP, UDP_SEGMENT: a 16-bit number
	for v4, want := range map[bool][]byte{
		true:  pad(order.AppendUint32(head(segment, 4, 0, 1), 2)),   // SOL_IP, IP_TOS
		false: pad(order.AppendUint32(head(segment, 4, 41, 67), 2)), // SOL_IPV6, IPV6_TCLASS
	} {
		var c control
		c.segment(0x0578)
		c.ecn(2, v4)
		if c.n > controlRoom {
			t.Fatalf("%d bytes do not fit", c.n)
		}
		if got := c.base()[:c.n]; !bytes.Equal(got, want) {
			t.Errorf("got  %x\nwant %x", got, want)
		}
	}
}
