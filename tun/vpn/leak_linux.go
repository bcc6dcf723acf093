package vpn

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// leakWatch listens to what leaves by every device but the tunnel and loopback.
type leakWatch struct {
	devices []net.Interface
	files   []*os.File
	done    sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	found map[string]*leakSeen
}

type leakSeen struct {
	n  int
	by string
}

// leakTry is an attempt with what it is known by: a payload, or for TCP its source port and target.
type leakTry struct {
	Leak
	token string
	send  func()
}

// openLeakWatch begins to listen.
func openLeakWatch(tunnel string) (*leakWatch, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	w := &leakWatch{found: map[string]*leakSeen{}}
	for _, i := range all {
		if i.Name == tunnel || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		f, err := listenBelow(i)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("listen on %s: %w", i.Name, err)
		}
		w.devices, w.files = append(w.devices, i), append(w.files, f)
		w.done.Go(func() { w.listen(f, i.Name) })
	}
	return w, nil
}

func listenBelow(i net.Interface) (*os.File, error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "leak-"+i.Name), nil
}

// listen looks for tokens until the file is closed. A token is random, so what has it is ours, and leaves: nobody else
// knows it.
func (w *leakWatch) listen(f *os.File, device string) {
	b := make([]byte, 2048)
	for {
		n, err := f.Read(b)
		if err != nil {
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return
		}
		w.mu.Lock()
		for token, s := range w.found {
			if bytes.Contains(b[:n], []byte(token)) {
				s.n, s.by = s.n+1, device
			}
		}
		w.mu.Unlock()
	}
}

func (w *leakWatch) close() {
	for _, f := range w.files {
		f.Close()
	}
	w.done.Wait()
}

func (w *leakWatch) names() (all []string) {
	for _, i := range w.devices {
		all = append(all, i.Name)
	}
	return all
}

func (w *leakWatch) seen(token string) (int, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.found[token].n, w.found[token].by
}

// expect has the watch look for a token from here on.
func (w *leakWatch) expect(token string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found[token] = &leakSeen{}
	return token
}

func newToken() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// proof sends a packet as the mesh does, which must be seen: a watch that sees nothing proves nothing.
func (w *leakWatch) proof(ctx context.Context, mark uint32) (bool, error) {
	token := w.expect(newToken())
	for range leakRounds {
		for _, to := range []netip.Addr{leakTarget4, leakTarget6} {
			fd, err := leakSocket(to, unix.SOCK_DGRAM)
			if err != nil {
				continue
			}
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark))
			if err == nil {
				_ = unix.Sendto(fd, []byte(token), 0, sockaddr(to, 9)) // seen or not is what counts
			}
			unix.Close(fd)
			if err != nil {
				return false, fmt.Errorf("leak check needs root or CAP_NET_ADMIN: %w", err)
			}
		}
		pause(ctx, leakPause)
		if n, _ := w.seen(token); n > 0 {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// attempts lists the ways that are tried.
func (w *leakWatch) attempts(resolvers []netip.Addr) []*leakTry {
	var all []*leakTry
	for _, r := range resolvers {
		all = append(all, w.udp("dns", r, "", netip.Addr{}))
		for _, i := range w.devices {
			all = append(all, w.udp("dns", r, i.Name, netip.Addr{}))
		}
	}
	for _, to := range []netip.Addr{leakTarget4, leakTarget6} {
		all = append(all, w.udp("udp", to, "", netip.Addr{}), w.tcp(to, ""), w.echo(to, ""))
		for _, i := range w.devices {
			all = append(all, w.udp("udp", to, i.Name, netip.Addr{}), w.tcp(to, i.Name), w.echo(to, i.Name))
			for _, from := range addressesOf(i, to.Is4()) {
				all = append(all, w.udp("udp", to, "", from))
			}
		}
	}
	return all
}

// addressesOf are those of a family that a socket may be bound to.
func addressesOf(i net.Interface, v4 bool) (out []netip.Addr) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // gone meanwhile
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			from, _ := netip.AddrFromSlice(n.IP)
			if from = from.Unmap(); from.Is4() == v4 && !from.IsLinkLocalUnicast() {
				out = append(out, from)
			}
		}
	}
	return out
}

func (w *leakWatch) udp(what string, to netip.Addr, device string, from netip.Addr) *leakTry {
	t := &leakTry{Leak: Leak{What: what, To: to.String(), Via: device}, token: w.expect(newToken())}
	if from.IsValid() {
		t.Via = from.String()
	}
	port, payload := uint16(443), []byte(t.token)
	if what == "dns" {
		port, payload = 53, appendQuery(nil, t.token)
	}
	t.send = func() { t.note(leakSend(unix.SOCK_DGRAM, to, port, device, from, payload)) }
	return t
}

// echo tries a ping.
func (w *leakWatch) echo(to netip.Addr, device string) *leakTry {
	t := &leakTry{Leak: Leak{What: "icmp", To: to.String(), Via: device}, token: w.expect(newToken())}
	packet := append([]byte{icmpEcho, 0, 0, 0, 0, 0, 0, 1}, t.token...)
	if to.Is6() {
		packet[0] = icmpEcho6 // the kernel fills in the checksum
	} else {
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	t.send = func() { t.note(leakSend(unix.SOCK_RAW, to, 0, device, netip.Addr{}, packet)) }
	return t
}

// tcp tries a handshake. Its token is what stands between the two headers of each of its segments: the target's address,
// and the ports.
func (w *leakWatch) tcp(to netip.Addr, device string) *leakTry {
	t := &leakTry{Leak: Leak{What: "tcp", To: to.String(), Via: device}}
	var p [4]byte
	rand.Read(p[:]) // never fails
	from, port := 20000+binary.BigEndian.Uint16(p[:])%40000, 20000+binary.BigEndian.Uint16(p[2:])%40000
	token := binary.BigEndian.AppendUint16(to.AsSlice(), from)
	t.token = w.expect(string(binary.BigEndian.AppendUint16(token, port)))
	t.send = func() { t.note(leakConnect(to, from, port, device)) }
	return t
}

func (t *leakTry) note(err error) {
	if err == nil {
		t.Sent++
		return
	}
	t.Refused = err.Error()
}

func leakSocket(to netip.Addr, kind int) (int, error) {
	family, protocol := unix.AF_INET, 0
	if to.Is6() {
		family = unix.AF_INET6
	}
	if kind == unix.SOCK_RAW {
		protocol = unix.IPPROTO_ICMP
		if to.Is6() {
			protocol = unix.IPPROTO_ICMPV6
		}
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// leakSend sends one packet by a socket bound as wished.
func leakSend(kind int, to netip.Addr, port uint16, device string, from netip.Addr, payload []byte) error {
	fd, err := leakSocket(to, kind)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return err
		}
	}
	if from.IsValid() {
		if err := unix.Bind(fd, sockaddr(from, 0)); err != nil {
			return err
		}
	}
	return unix.Sendto(fd, payload, 0, sockaddr(to, port))
}

// leakConnect begins a handshake and gives it up.
func leakConnect(to netip.Addr, from, port uint16, device string) error {
	fd, err := leakSocket(to, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return err
		}
	}
	anywhere := netip.IPv4Unspecified()
	if to.Is6() {
		anywhere = netip.IPv6Unspecified()
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, sockaddr(anywhere, from)); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(to, port)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// appendQuery appends a question for the address of LABEL.invalid (RFC 1035, 6761), as a resolver would ask it.
func appendQuery(b []byte, label string) []byte {
	b = append(b, label[0], label[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(label)))
	b = append(b, label...)
	return append(append(b, 7), "invalid\x00\x00\x01\x00\x01"...)
}
