package udp

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	s := listenTest(t, "127.0.0.1:0", false)
	i := s.Info()
	t.Logf("%+v", i)
	if i.ReceiveBuffer <= 0 || i.SendBuffer <= 0 {
		t.Error("buffer sizes are not read back")
	}
	plain := listenTest(t, "127.0.0.1:0", true).Info()
	if plain.GSO || plain.GRO {
		t.Errorf("plain socket has %+v", plain)
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	tx, rx := listenTest(t, "127.0.0.1:0", true), listenTest(t, "127.0.0.1:0", true)
	if err := tx.Send(rx.Addr(), make([]byte, 500), 500, 0); err != nil {
		t.Fatal(err)
	}
	if err := rx.wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := rx.Receive(make([]byte, 100)); !errors.Is(err, ErrTruncated) {
		t.Fatalf("got %v, want ErrTruncated", err)
	}
}

func (s *Socket) wait() error {
	p := []unix.PollFd{{Fd: s.fd.Load(), Events: unix.POLLIN}}
	_, err := unix.Poll(p, 1000)
	return err
}

// TestOffloadRefused has the kernel refuse trains but not datagrams, as devices do: the train arrives all the same, and
// trains are not tried again. A too long segment is told as such and turns nothing off.
func TestOffloadRefused(t *testing.T) {
	t.Parallel()
	tx, rx := listenTest(t, "127.0.0.1:0", false), listenTest(t, "127.0.0.1:0", false)
	if !tx.Info().GSO {
		t.Skip("no UDP_SEGMENT")
	}
	train := testTrain(20, 1000, 1000)
	if err := tx.Send(rx.Addr(), make([]byte, 65536*2), 65536, 0); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too long: %v, want EMSGSIZE", err)
	}
	if !tx.Info().GSO {
		t.Error("a too long segment turned trains off")
	}
	if err := unix.SetsockoptInt(tx.FD(), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	if err := tx.Send(rx.Addr(), train, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if data, sizes, _ := collect(t, rx, len(train)); !bytes.Equal(data, train) || len(sizes) != 20 {
		t.Errorf("%d datagrams arrived", len(sizes))
	}
	if tx.Info().GSO {
		t.Error("trains are still on")
	}
}

func TestAllocations(t *testing.T) {
	for _, plain := range []bool{false, true} {
		tx, rx := listenTest(t, "127.0.0.1:0", plain), listenTest(t, "[::]:0", plain)
		to := netip.AddrPortFrom(tx.Addr().Addr(), rx.Addr().Port())
		train, b := testTrain(8, 1400, 1400), make([]byte, 65536)
		n := testing.AllocsPerRun(100, func() {
			if err := tx.Send(to, train, 1400, 0); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < len(train); {
				a, err := rx.Receive(b)
				if err == unix.EAGAIN {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				got += a.N
			}
		})
		if n != 0 {
			t.Errorf("plain %v: %v allocations a train", plain, n)
		}
	}
}

func FuzzSegmentSize(f *testing.F) {
	var good [24]byte
	h := (*unix.Cmsghdr)(unsafe.Pointer(&good[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_GRO
	h.SetLen(unix.CmsgLen(4))
	good[unix.CmsgLen(0)] = 100
	if got := segmentSize(good[:unix.CmsgSpace(4)]); got != 100 {
		f.Fatalf("got %d", got)
	}
	f.Add(good[:])
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) { segmentSize(b) })
}

func BenchmarkTrain(b *testing.B) {
	for name, plain := range map[string]bool{"gso": false, "plain": true} {
		b.Run(name, func(b *testing.B) {
			tx, rx := listenTest(b, "127.0.0.1:0", plain), listenTest(b, "127.0.0.1:0", plain)
			train, buf := testTrain(46, 1400, 1400), make([]byte, 65536)
			b.ReportAllocs()
			b.SetBytes(int64(len(train)))
			for b.Loop() {
				if err := tx.Send(rx.Addr(), train, 1400, 0); err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := rx.Receive(buf); err != nil {
						break
					}
				}
			}
		})
	}
}
