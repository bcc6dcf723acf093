package udp

import (
	"bytes"
	"errors"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

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
			if err := tx.Send(to, train[:4*1400], 1400, 0); err != nil {
				t.Fatal(err)
			}
			if n, err := tx.TrySend(to, train[4*1400:], 1400, 0); err != nil || n != 4*1400 {
				t.Fatal(n, err)
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

func FuzzParseControl(f *testing.F) {
	var c control
	*(*int32)(c.add(unix.IPPROTO_UDP, unix.UDP_GRO, 4)) = 100
	c.ecn(3, false)
	f.Add(c.base()[:c.n])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c control // the kernel's room is aligned, b need not be
		if _, ecn := parseControl(c.base()[:copy(c.base()[:], b)]); ecn > 3 {
			t.Fatalf("ECN field %d", ecn)
		}
	})
}

// BenchmarkTrain sends trains of 32 datagrams over loopback by turns with UDP_SEGMENT and UDP_GRO, with sendmmsg and
// recvmmsg, and one by one. The figures are CPU nanoseconds of this thread for a datagram, most of them the network stack's,
// so that they can be compared on a busy machine too.
func BenchmarkTrain(b *testing.B) {
	for _, size := range []int{1400, 100} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			modes := []*course{newCourse(b, "gso", size), newCourse(b, "mmsg", size), newCourse(b, "single", size)}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			for b.Loop() {
				for _, m := range modes {
					m.run(b)
				}
			}
			for _, m := range modes {
				b.ReportMetric(float64(m.sending)/float64(b.N)/courseLen, m.name+"-tx-ns")
				b.ReportMetric(float64(m.receiving)/float64(b.N)/courseLen, m.name+"-rx-ns")
			}
		})
	}
}

const courseLen = 32

// course is a train over loopback again and again.
type course struct {
	name               string
	tx, rx             *Socket
	train, buf         []byte
	size               int
	sending, receiving time.Duration
}

func newCourse(b *testing.B, mode string, size int) *course {
	c := &course{
		name: mode, size: size, train: testTrain(courseLen, size, size), buf: make([]byte, 65536),
		tx: listenTest(b, "127.0.0.1:0", mode != "gso"), rx: listenTest(b, "127.0.0.1:0", mode != "gso"),
	}
	if mode == "single" {
		single(c.tx)
		single(c.rx)
	}
	return c
}

func (c *course) run(b *testing.B) {
	start := threadTime()
	if err := c.tx.Send(c.rx.Addr(), c.train, c.size, 0); err != nil {
		b.Fatal(err)
	}
	sent := threadTime()
	for got := 0; got < len(c.train); {
		a, err := c.rx.Receive(c.buf)
		if err != nil {
			b.Fatal(err)
		}
		got += a.N
	}
	c.sending += sent - start
	c.receiving += threadTime() - sent
}

// threadTime is the processor time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// single has a plain socket make one system call a datagram.
func single(s *Socket) {
	s.mmsg.Store(false)
	s.inbox = nil
}
