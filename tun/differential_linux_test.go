package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// router is a network namespace that forwards from one device to another.
type router struct {
	in, out Device
	inFD    int
	got     [][]byte
	supers  int // reads that were super-packets
	buf     []byte
	to      []byte // IPv6 destination of what was sent
}

var router6 = [2]netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}

// joined has packets handed to Send, which joins them where the device can; asRead has the virtio headers written as made.
const joined, asRead = true, false

// newRouter must be called on a thread with a network namespace of its own.
func newRouter(plainIn, plainOut bool) (*router, error) {
	r := &router{buf: make([]byte, bufferSize), to: router6[1].AsSlice()}
	open := func(name string, plain bool) (Device, int, error) {
		f, _, err := Create(Config{Name: name, Plain: plain})
		if err != nil {
			return nil, 0, err
		}
		fd := int(f.Fd())
		d, err := FromFile(f, 65000)
		return d, fd, err
	}
	var err error
	if r.in, r.inFD, err = open("tpin", plainIn); err != nil {
		return nil, err
	}
	if r.out, _, err = open("tpout", plainOut); err != nil {
		return nil, err
	}
	for _, s := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+s, []byte("1"), 0o644); err != nil {
			return nil, err
		}
	}
	for _, l := range strings.Split(fmt.Sprintf(`link set tpin mtu 65535 up
link set tpout mtu 65535 txqueuelen 20000 up
route add %s dev tpin
route add %s dev tpout
route add %s dev tpin
route add %s dev tpout`, chain4[0], chain4[1], router6[0], router6[1]), "\n") {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", l, err, out)
		}
	}
	return r, nil
}

// drain reads what was forwarded so far. What the far kernel would fill in is filled in.
func (r *router) drain() error {
	for {
		count, err := r.out.Receive()
		if count > 1 {
			r.supers++
		}
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		for {
			n, checksum, ok := r.out.Packet(r.buf)
			if !ok {
				break
			}
			p := slices.Clone(r.buf[:n])
			if p[0]>>4 == 6 && string(p[24:40]) != string(r.to) {
				continue // the kernel's own talk
			}
			if checksum {
				in, ok := parseInner(p)
				if !ok {
					return fmt.Errorf("checksum of what cannot be parsed is open: %x", p)
				}
				put16(p, in.transport+in.checksum, kernelPseudo(p, in.proto, in.transport))
				kernelFill(p, in.transport, in.checksum)
			}
			r.got = append(r.got, p)
		}
	}
}

// writeRead writes a read of a TUN with its virtio header, as another kernel's.
func (r *router) writeRead(it item) error {
	it.h.headerLen = min(it.h.headerLen, uint16(min(len(it.p), 65535)))
	if len(it.want) == 1 { // tcp_gso_segment refuses a single segment
		it.h.gsoType, it.h.gsoSize = gsoNone, 0
	}
	b := make([]byte, virtioLen, virtioLen+len(it.p))
	it.h.put(b)
	_, err := unix.Write(r.inFD, append(b, it.p...))
	return err
}

// pass sends the stream through a namespace and returns what came out of it.
func pass(items []item, plainIn, plainOut, join bool) (*router, error) {
	r, err := newRouter(plainIn, plainOut)
	if err != nil {
		return nil, err
	}
	defer r.in.Close()
	defer r.out.Close()
	for i, it := range items {
		if !join {
			if err := r.writeRead(it); err != nil {
				return nil, fmt.Errorf("%s: %w", it.name, err)
			}
		}
		for k, p := range it.want {
			if !join {
				break
			}
			in, ok := parseInner(p)
			open := ok && in.valid(p) && get16(p, in.transport+in.checksum) != 0 && (i+k)%3 > 0
			if open {
				p = slices.Clone(p)
				put16(p, in.transport+in.checksum, uint16(i)) // what stands there does not count
			}
			if err := r.in.Send(p, open); err != nil {
				return nil, fmt.Errorf("%s: %w", it.name, err)
			}
		}
		if i%20 == 19 {
			if err := r.in.Flush(); err != nil {
				return nil, err
			}
		}
		if err := r.drain(); err != nil {
			return nil, err
		}
	}
	if err := r.in.Flush(); err != nil {
		return nil, err
	}
	return r, r.drain()
}

// TestDifferentialRealTUN has the kernel forward one stream of generated packets between two devices, written one by
// one, joined and as super-packets, read one by one and as super-packets: it comes out the same.
func TestDifferentialRealTUN(t *testing.T) {
	t.Parallel()
	seed := chainSeed(t)
	g := newSource(seed, chain4[0], router6[0], chain4[1], router6[1])
	var items []item
	for len(items) < 3000 {
		if it := g.next(); len(it.want) > 0 && len(it.want) < 2000 {
			items = append(items, it)
		}
	}
	var base []item // what the first way gave
	for _, way := range []struct {
		name                    string
		plainIn, plainOut, join bool
	}{
		{"one by one", true, true, joined},
		{"joined", false, true, joined},
		{"joined, cut again", false, false, joined},
		{"super-packets, cut by the kernel", false, true, asRead},
		{"super-packets, cut by us", false, false, asRead},
	} {
		inNamespace(t, func() error {
			r, err := pass(items, way.plainIn, way.plainOut, way.join)
			if err != nil {
				return fmt.Errorf("seed %d, %s: %w", seed, way.name, err)
			}
			if base == nil {
				base = []item{{name: "packet", want: r.got}}
				t.Logf("seed %d: %d packets", seed, len(r.got))
				return nil
			}
			if err := compareFlows(base, r.got, true); err != nil {
				return fmt.Errorf("seed %d, %s: %w", seed, way.name, err)
			}
			if (r.supers > 0) == way.plainOut {
				return fmt.Errorf("seed %d, %s: %d super-packets", seed, way.name, r.supers)
			}
			t.Logf("%s: %d super-packets read", way.name, r.supers)
			return nil
		})
	}
}
