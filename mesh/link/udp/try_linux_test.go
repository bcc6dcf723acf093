package udp

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onSlowLoopback runs f on a thread in a network namespace whose loopback passes 2 Mbit/s.
func onSlowLoopback(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	done := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- "no network namespace: " + err.Error()
			return
		}
		for _, l := range []string{"ip link set lo up", "tc qdisc add dev lo root tbf rate 2mbit burst 20kb limit 4mb"} {
			args := strings.Fields(l)
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				done <- l + ": " + string(out)
				return
			}
		}
		f()
		done <- ""
	}()
	if s := <-done; s != "" {
		t.Skip(s)
	}
}

// TestTrySend fills a socket before a slow line: what it says that it took arrives, once and in order, and it never waits.
func TestTrySend(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		onSlowLoopback(t, func() {
			tx, err := Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain, Buffer: 40_000})
			if err != nil {
				t.Error(err)
				return
			}
			defer tx.Close()
			rx, err := Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
			if err != nil {
				t.Error(err)
				return
			}
			defer rx.Close()
			train := testTrain(64, 1000, 700)
			var took []byte
			full := 0
			for off := 0; off < len(train); {
				n, err := tx.TrySend(rx.Addr(), train[off:], 1000, 0)
				if n%1000 != 0 && off+n != len(train) {
					t.Errorf("plain %v: %d bytes are no whole datagrams", plain, n)
				}
				took = append(took, train[off:off+n]...)
				off += n
				switch err {
				case nil:
					if off < len(train) {
						t.Errorf("plain %v: %d bytes without an error", plain, n)
					}
					if full == 0 {
						off = 0 // again, until it is full
					}
				case unix.EAGAIN:
					full++
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(tx.FD()), Events: unix.POLLOUT}}, 5000)
				default:
					t.Errorf("plain %v: %v", plain, err)
					return
				}
			}
			got, b := []byte(nil), make([]byte, 65536)
			for end := time.Now().Add(20 * time.Second); len(got) < len(took) && time.Now().Before(end); {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(rx.FD()), Events: unix.POLLIN}}, 1000)
				if a, err := rx.Receive(b); err == nil {
					got = append(got, b[:a.N]...)
				}
			}
			if !bytes.Equal(got, took) || full == 0 {
				t.Errorf("plain %v: %d bytes arrived of %d, full %d times", plain, len(got), len(took), full)
			}
		})
	}
}
