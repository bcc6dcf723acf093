package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"skywire/mesh/forward"
)

var (
	_ forward.Socket = (*Socket)(nil)
	_ forward.Poller = (*Poller)(nil)
)

func listenTest(t testing.TB, addr string, plain bool) *Socket {
	t.Helper()
	s, err := Listen(Config{Addr: netip.MustParseAddrPort(addr), Plain: plain})
	if err != nil {
		t.Skipf("no socket on %s: %v", addr, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// collect waits on a poller of its own until want bytes came or a wake-up says that it takes too long.
func collect(t *testing.T, s *Socket, want int) (data []byte, sizes []int, from netip.AddrPort) {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Add(7, s); err != nil {
		t.Fatal(err)
	}
	defer p.Remove(s)
	b := make([]byte, 65536)
	for len(data) < want {
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		for {
			a, err := s.Receive(b)
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, b[:a.N]...)
			from = a.From
			for ; a.N > 0; a.N -= a.Seg {
				sizes = append(sizes, min(a.N, a.Seg))
			}
		}
	}
	return data, sizes, from
}

func testTrain(segs, seg, last int) []byte {
	b := make([]byte, (segs-1)*seg+last)
	for i := range b {
		b[i] = byte(i*7 + i/seg)
	}
	return b
}

// TestTrains checks that what is sent with and without offload arrives as the same datagrams.
func TestTrains(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, mode := range []struct{ sendPlain, receivePlain bool }{{}, {true, false}, {false, true}, {true, true}} {
			for _, tr := range []struct{ segs, seg, last int }{{1, 1200, 1200}, {46, 1400, 1400}, {10, 1000, 17}, {64, 900, 900}, {3, 40, 39}, {90, 100, 5}} {
				t.Run(fmt.Sprintf("%s/%v/%v", addr, mode, tr), func(t *testing.T) {
					t.Parallel()
					tx, rx := listenTest(t, addr, mode.sendPlain), listenTest(t, addr, mode.receivePlain)
					train := testTrain(tr.segs, tr.seg, tr.last)
					if err := tx.Send(rx.Addr(), train, tr.seg, 0); err != nil {
						t.Fatal(err)
					}
					data, sizes, from := collect(t, rx, len(train))
					if !bytes.Equal(data, train) {
						t.Fatalf("got %d bytes that differ from the %d sent", len(data), len(train))
					}
					if len(sizes) != tr.segs || sizes[0] != min(tr.seg, len(train)) || sizes[len(sizes)-1] != tr.last {
						t.Fatalf("got sizes %v", sizes)
					}
					if from != tx.Addr() {
						t.Fatalf("from %v, want %v", from, tx.Addr())
					}
				})
			}
		}
	}
}

func TestDualStack(t *testing.T) {
	t.Parallel()
	rx := listenTest(t, "[::]:0", false)
	if !rx.Info().DualStack {
		t.Skip("no dual stack")
	}
	for _, from := range []string{"127.0.0.1:0", "[::1]:0"} {
		tx := listenTest(t, from, false)
		to := netip.AddrPortFrom(tx.Addr().Addr(), rx.Addr().Port())
		if err := tx.Send(to, []byte("hello"), 5, 0); err != nil {
			t.Fatal(err)
		}
		_, _, got := collect(t, rx, 5)
		if got != tx.Addr() {
			t.Fatalf("from %v, want %v: mapped addresses must come out as IPv4", got, tx.Addr())
		}
		// And back.
		if err := rx.Send(got, []byte("reply"), 5, 0); err != nil {
			t.Fatal(err)
		}
		if data, _, _ := collect(t, tx, 5); string(data) != "reply" {
			t.Fatalf("got %q", data)
		}
	}
}

func TestSendErrors(t *testing.T) {
	t.Parallel()
	tx := listenTest(t, "127.0.0.1:0", false)
	if err := tx.Send(netip.MustParseAddrPort("127.0.0.1:9"), make([]byte, 65536), 65536, 0); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too long: %v, want EMSGSIZE", err)
	}
	if err := tx.Send(netip.AddrPort{}, []byte("x"), 1, 0); !errors.Is(err, ErrAddress) {
		t.Errorf("no address: %v, want ErrAddress", err)
	}
	_, err := tx.Receive(make([]byte, 100))
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("empty: %v, want EAGAIN", err)
	}
	if err := tx.Close(); err != nil {
		t.Error(err)
	}
	if err := tx.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestWake(t *testing.T) {
	t.Parallel()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	done := make(chan error)
	go func() {
		_, err := p.Wait()
		done <- err
	}()
	p.Wake()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
