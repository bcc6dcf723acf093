package tun

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/link/udp"
)

// TestUDPSockets has the kernel deliver joined datagrams to those who may listen: a UDP socket that knows nothing of super-packets
// gets each one, one with UDP_GRO the same ones in trains, a packet socket the super-packet as it was written.
func TestUDPSockets(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		for _, open := range []bool{false, true} {
			inNamespace(t, func() error {
				err := udpSockets(v6, open)
				if err != nil {
					err = fmt.Errorf("IPv6 %v, checksums open %v: %w", v6, open, err)
				}
				return err
			})
		}
	}
}

func udpSockets(v6, open bool) error {
	f, _, err := Create(Config{Name: "tpudp"})
	if err != nil {
		return err
	}
	d, err := FromFile(f, 1500)
	if err != nil {
		return err
	}
	defer d.Close()
	if !d.Features().JoinUDP {
		return nil // a kernel before 6.2
	}
	if err := runIP("link set tpudp up", "addr add 10.4.5.6/24 dev tpudp", "addr add fd00::2/64 nodad dev tpudp"); err != nil {
		return err
	}
	at, family := netip.AddrFrom4([4]byte{10, 4, 5, 6}), unix.ETH_P_IP
	if v6 {
		at, family = test6b, unix.ETH_P_IPV6
		// The kernel lays the route to an IPv6 address of its own some time later.
		for end := time.Now().Add(10 * time.Second); ; {
			out, err := exec.Command("ip", "-6", "route", "show", "table", "local", "type", "local").CombinedOutput()
			if err != nil || time.Now().After(end) {
				return fmt.Errorf("no route to %v: %w: %s", at, err, out)
			}
			if strings.Contains(string(out), at.String()) {
				break
			}
		}
	}
	packets, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, int(htons(uint16(family))))
	if err != nil {
		return err
	}
	defer unix.Close(packets)
	// Sockets of two ports: one cuts, one takes trains.
	var sockets [2]*udp.Socket
	for i := range sockets {
		if sockets[i], err = udp.Listen(udp.Config{Addr: netip.AddrPortFrom(at, uint16(1000+i)), Plain: i == 0}); err != nil {
			return err
		}
		defer sockets[i].Close()
	}
	if err := unix.SetsockoptInt(packets, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		return err
	}
	var sent [2][][]byte
	for i := range sockets {
		for k, p := range datagrams(v6, 150, 1000, 1) {
			in, _ := parseInner(p)
			put16(p, in.transport, 999)
			put16(p, in.transport+2, uint16(1000+i))
			if k%50 == 49 { // ends a run
				p = p[:len(p)-300]
				if v6 {
					put16(p, 4, uint16(len(p)-40))
				} else {
					put16(p, 2, uint16(len(p)))
				}
				put16(p, in.transport+4, uint16(len(p)-in.transport))
			}
			if !v6 {
				headerSum(p)
			}
			in, _ = parseInner(p)
			in.fill(p)
			sent[i] = append(sent[i], slices.Clone(p[in.transport+udpLen:]))
			if open {
				put16(p, in.transport+6, 0)
			}
			if err := d.Send(p, open); err != nil {
				return err
			}
		}
	}
	if err := d.Flush(); err != nil {
		return err
	}
	single := func(b []byte) (int, int, error) { // as a program does that knows of nothing
		n, err := unix.Read(sockets[0].FD(), b)
		return n, n, err
	}
	train := func(b []byte) (int, int, error) {
		a, err := sockets[1].Receive(b)
		return a.N, a.Seg, err
	}
	for i, receive := range []func([]byte) (int, int, error){single, train} {
		got, largest, err := collectUDP(receive, sockets[i].FD(), len(sent[i]))
		if err != nil {
			return err
		}
		if !slices.EqualFunc(got, sent[i], bytes.Equal) {
			return fmt.Errorf("socket %d: %d datagrams, want %d", i, len(got), len(sent[i]))
		}
		if (largest > 1000) != (i == 1) {
			return fmt.Errorf("socket %d: a read of %d bytes", i, largest)
		}
	}
	return captured(packets, sent)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// collectUDP reads n datagrams, and says how long the longest read was.
func collectUDP(receive func([]byte) (n, seg int, err error), fd, n int) (got [][]byte, largest int, err error) {
	b := make([]byte, 65536)
	for end := time.Now().Add(10 * time.Second); len(got) < n; {
		k, seg, err := receive(b)
		if errors.Is(err, unix.EAGAIN) {
			if time.Now().After(end) {
				break
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		largest = max(largest, k)
		for p := range slices.Chunk(b[:k], max(1, seg)) {
			got = append(got, slices.Clone(p))
		}
	}
	return got, largest, nil
}

// captured checks that a packet socket saw the bytes of all datagrams, in super-packets.
func captured(packets int, sent [2][][]byte) error {
	var got [2][]byte
	reads := 0
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Read(packets, b)
		if err != nil {
			break
		}
		in, ok := parseInner(b[:n])
		if !ok || in.proto != protoUDP || get16(b, in.transport) != 999 {
			continue
		}
		i := get16(b, in.transport+2) - 1000
		got[i] = append(got[i], b[in.transport+udpLen:n]...)
		reads++
	}
	for i, want := range sent {
		if !bytes.Equal(got[i], slices.Concat(want...)) {
			return fmt.Errorf("packet socket: %d bytes for socket %d, want %d", len(got[i]), i, len(slices.Concat(want...)))
		}
	}
	if reads > 12 {
		return fmt.Errorf("%d packets, not super-packets", reads)
	}
	return nil
}
