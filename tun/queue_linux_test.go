package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestQueues holds what the node relies on: flows spread over the queues of a device, and the kernel sends a flow by the
// queue to which its answers are written. A queue that is closed gives its flows to the others.
func TestQueues(t *testing.T) {
	t.Parallel()
	for _, plainForm := range []bool{false, true} {
		inNamespace(t, func() error {
			c := Config{Name: "tpqueue", Plain: plainForm, Queues: 2}
			f, name, err := Create(c)
			if err != nil {
				return err
			}
			second, err := AddQueue(c, name)
			if err != nil {
				return err
			}
			var queues [2]Device
			for i := range queues {
				if queues[i], err = FromFile(f, 1400); err != nil {
					return err
				}
				defer queues[i].Close()
				f = second
			}
			if has := queues[1].Features(); !has.MultiQueue || has.VnetHdr == plainForm {
				return fmt.Errorf("plain %v: features %+v", plainForm, has)
			}
			if err := runIP("link set tpqueue up", "addr add 10.9.0.1/24 dev tpqueue"); err != nil {
				return err
			}
			return flowsFollow(queues)
		})
	}
}

func flowsFollow(queues [2]Device) error {
	here, there := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: here.As4(), Port: 5000}); err != nil {
		return err
	}
	used := [2]int{}
	for flow := range uint16(32) {
		send := func() (int, error) {
			if err := unix.Sendto(fd, []byte("packet"), 0, &unix.SockaddrInet4{Addr: there.As4(), Port: 6000 + int(flow)}); err != nil {
				return 0, err
			}
			return queueOf(queues, 6000+flow)
		}
		first, err := send()
		if err != nil {
			return err
		}
		used[first]++
		for _, want := range []int{1 - first, first} {
			b := make([]byte, 28+4)
			b[0], b[8], b[9] = 0x45, 64, 17
			put16(b, 2, uint16(len(b)))
			copy(b[12:], there.AsSlice())
			copy(b[16:], here.AsSlice())
			put16(b, 10, ^fold(sum(b[:20], 0)))
			put16(b, 20, 6000+flow)
			put16(b, 22, 5000)
			put16(b, 24, 12) // no checksum, which IPv4 allows
			if err := errors.Join(queues[want].Send(b, false), queues[want].Flush()); err != nil {
				return err
			}
			if got, err := send(); err != nil || got != want {
				return fmt.Errorf("flow %d: answered on queue %d, comes on %d: %w", flow, want, got, err)
			}
		}
	}
	if used[0] == 0 || used[1] == 0 {
		return fmt.Errorf("32 flows are spread %v", used)
	}
	return nil
}

// queueOf waits for a packet to a port and tells on which queue it came.
func queueOf(queues [2]Device, port uint16) (int, error) {
	b := make([]byte, 2048)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(queues[0].FD()), Events: unix.POLLIN}, {Fd: int32(queues[1].FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 1000); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		for i, q := range queues {
			if _, err := q.Receive(); err != nil {
				continue
			}
			for n, _, ok := q.Packet(b); ok; n, _, ok = q.Packet(b) {
				if n >= 28 && b[0]>>4 == 4 && b[9] == 17 && binary.BigEndian.Uint16(b[22:]) == port {
					return i, nil
				}
			}
		}
	}
	return 0, errors.New("nothing came")
}
