package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/tun/vpn"
)

// Addresses of the internet behind a server, and of the LAN that it is the router of.
const (
	netIPv4 = "8.8.4.4"
	netIPv6 = "2001:4860::8"
	lanIPv4 = "192.168.9.5"
	lanIPv6 = "2001:db8:9::5"
)

// behind gives a box an uplink to the box "net", the internet, and a LAN with the box "lan".
func (w *world) behind(box string) {
	w.t.Helper()
	w.plain("net", "lan")
	for _, b := range []string{box, "net", "lan"} {
		w.must(w.box[b].Sysctl("net.ipv6.conf.default.accept_dad=0"))
	}
	w.must(
		w.lab.Wire(w.end(box, "wan", "198.51.100.2/24", "2001:db8::2/64"),
			w.end("net", "wan", "198.51.100.1/24", "2001:db8::1/64")),
		w.lab.Wire(w.end(box, "lan", "192.168.9.1/24", "2001:db8:9::1/64"), w.end("lan", "eth0", lanIPv4+"/24", lanIPv6+"/64")),
		w.box["net"].IP("addr add "+netIPv4+"/32 dev lo"), w.box["net"].IP("addr add "+netIPv6+"/128 dev lo"),
		w.box["net"].IP("-6 route add 2001:db8:9::/64 via 2001:db8::2"),
		w.box["lan"].IP("-6 route add default via 2001:db8:9::1"), w.box["lan"].IP("route add default via 192.168.9.1"),
		w.box[box].IP("route add default via 198.51.100.1"), w.box[box].IP("-6 route add default via 2001:db8::1"))
}

// hub plugs boxes into one switch, 10.1.0.1 and on.
func (w *world) hub(boxes ...string) {
	w.t.Helper()
	w.plain("hub")
	var ends []lab.End
	for i, b := range boxes {
		ends = append(ends, w.end(b, "eth0", fmt.Sprintf("10.1.0.%d/24", i+1)))
	}
	w.must(w.lab.Switch(w.box["hub"], "bridge0", ends...))
}

// vpnStatus is vpn status of a box, once ok is content with it.
func (w *world) vpnStatus(box string, ok func(vpn.Status) bool) (s vpn.Status) {
	w.t.Helper()
	w.wait("vpn status of "+box, func(ctx context.Context) error {
		s = vpn.Status{}
		err := w.box[box].SkywireJSON(ctx, &s, "vpn", "status")
		if err == nil && !ok(s) {
			err = fmt.Errorf("%+v %+v %+v", s, s.Server, s.Client)
		}
		return w.alive(w.run[box+" vpn"], err)
	})
	return s
}

func vpnUpState(s vpn.Status) bool { return s.State == vpn.Up }

func vpnConnected(s vpn.Status) bool { return s.State == vpn.Connected }

// tries reports whether a TCP connection comes about.
func (w *world) tries(from, addr string) bool {
	w.t.Helper()
	err := w.box[from].Enter(func() error {
		c, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	return err == nil
}

// recertify has the admin of a box change a node's certificate.
func (w *world) recertify(admin, box string, change func(*member.Certificate)) {
	w.t.Helper()
	signer, _, err := key.LoadOrCreate(filepath.Join(w.box[admin].State(), "admin.key"))
	w.must(err)
	var c member.Certificate
	for _, raw := range w.statements(admin) {
		if held, err := member.ParseCertificate(raw); err == nil && held.Node.String() == w.key[box] {
			c = *held
		}
	}
	c.Issued++
	c.Serial++
	change(&c)
	raw, err := c.Sign(c.Cluster, signer)
	w.must(err)
	var r struct {
		News    int
		Refused []string
	}
	w.must(w.client(admin).Call(w.t.Context(), "member.put", map[string][][]byte{"statements": {raw}}, &r))
	if r.News != 1 {
		w.t.Fatalf("certificate of %s not taken: %v", box, r.Refused)
	}
}

// TestE2EVPNRights: what a server's clients reach and what not, by key and by tag; who loses a right is cut off at once.
func TestE2EVPNRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vps")
	w.boxes("m", "s", "c", "d")
	w.hub("m", "s", "c", "d")
	w.behind("s")
	w.node("m", "--no-lan")
	w.found("m")
	for _, n := range []string{"s", "c", "d"} {
		w.node(n, "--no-lan")
	}
	w.join("s", w.invite("m", "--addr", "10.1.0.1:"+meshPort, "--name", "serve"))
	w.join("c", w.invite("m", "--addr", "10.1.0.1:"+meshPort, "--name", "carol", "--tag", "family"))
	w.join("d", w.invite("m", "--addr", "10.1.0.1:"+meshPort, "--name", "dave"))
	for _, n := range []string{"s", "c", "d"} {
		w.reachName("m", w.key[n])
	}
	w.reachName("c", "serve")
	w.reachName("d", "serve")
	w.start("s", "vpn", "vpn", "server", "--allow-exit", "@family", "--subnet", "192.168.9.0/24="+w.key["d"])
	w.vpnStatus("s", vpnUpState)
	w.start("m", "vpn", "vpn", "up")
	w.start("c", "vpn", "vpn", "client", "--server", "serve", "--exit")
	w.start("d", "vpn", "vpn", "client", "--server", "serve")
	c, d := w.vpnStatus("c", vpnConnected), w.vpnStatus("d", vpnConnected)
	if c.IPv4 != c.Client.IPv4 || !c.IPv4.IsValid() || c.IPv4 == d.IPv4 {
		t.Errorf("addresses: certificate %s, lease %s, another node %s", c.IPv4, c.Client.IPv4, d.IPv4)
	}
	w.pings("m", c.IPv4.String()) // members reach each other at certified addresses
	if out := w.skywire("m", "node", "whois", c.IPv4.String()); !strings.Contains(out, w.key["c"]) || !strings.Contains(out, "family") {
		t.Errorf("whois: %s", out)
	}
	for _, l := range []struct{ box, addr string }{
		{"net", "[::]:80"}, {"lan", "[::]:80"}, {"s", "[::]:80"}, {"d", "[::]:80"}, {"c", "[::]:80"},
	} {
		w.listen(l.box, l.addr)
	}
	server := w.vpnStatus("s", vpnUpState).Server.IPv4
	for _, p := range []struct {
		from, what, addr string
		want             bool
	}{
		{"c", "internet", netIPv4, true},
		{"c", "internet, IPv6", netIPv6, true},
		{"c", "server's LAN", lanIPv4, false},
		{"c", "server's LAN, IPv6", lanIPv6, false},
		{"c", "server's own LAN address", "192.168.9.1", false},
		{"c", "server's own uplink address", "198.51.100.2", false},
		{"c", "server's own uplink address, IPv6", "2001:db8::2", false},
		{"c", "server's services at the gateway's address", server.String(), false},
		{"c", "underlay address of the server's", "10.1.0.2", true}, // beside the tunnel: the LAN both are on
		{"d", "granted subnet", lanIPv4, true},
		{"d", "subnet's IPv6, not granted", lanIPv6, false},
		{"d", "internet, not granted", netIPv4, false},
		{"d", "server's services at the gateway's address", server.String(), false},
	} {
		if got := w.tries(p.from, net.JoinHostPort(p.addr, "80")); got != p.want {
			t.Errorf("%s reaches %s (%s): %v, want %v", p.from, p.what, p.addr, got, p.want)
		}
	}
	w.spoofs("c", "net", netIPv4, c.IPv4, netip.MustParseAddr(w.address("c")), []spoof{
		{"another client", d.IPv4.String()}, {"the server's LAN", "192.168.9.77"}, {"the server", server.String()},
		{"a stranger", "203.0.113.9"}, {"loopback", "127.0.0.1"},
		{"another node", w.address("d")}, {"the server's LAN, IPv6", "2001:db8:9::77"}, {"IPv4 in IPv6", "::ffff:192.168.9.77"},
	})
	w.cuts(t)
}

// cuts takes rights away and wants silence within a second.
func (w *world) cuts(t *testing.T) {
	t.Helper()
	for _, p := range []struct {
		box, to, what string
		take          func()
	}{
		{"c", netIPv4, "its tag", func() { w.recertify("m", "c", func(c *member.Certificate) { c.Tags = nil }) }},
		{"d", lanIPv4, "its membership", func() { w.skywire("m", "manager", "revoke", "dave") }},
	} {
		ping, err := w.box[p.box].Start("ping", "ping", "-D", "-i", "0.05", p.to)
		w.must(err)
		w.wait("answers to ping", func(context.Context) error {
			if strings.Count(ping.Output(), "time=") < 5 {
				return fmt.Errorf("%q", ping.Tail(2))
			}
			return nil
		})
		at := time.Now()
		p.take()
		w.wait("silence of ping", func(context.Context) error {
			if d := time.Since(lastAnswer(t, ping.Output())); d < 2*time.Second {
				return fmt.Errorf("the last answer came %v ago", d)
			}
			return nil
		})
		after := lastAnswer(t, ping.Output()).Sub(at)
		ping.Kill()
		t.Logf("%s lost %s: the last answer came %v after that was asked for", p.box, p.what, after)
		if after > cutWithin {
			t.Errorf("%s lost %s and was answered %v later, want less than %v", p.box, p.what, after, cutWithin)
		}
	}
}

// spoof is a source address that a client has no right to.
type spoof struct{ what, source string }

// spoofMark is in the payload of what spoofs sends.
const spoofMark = "a packet of spoofs, number "

// spoofs sends packets from a box's raw socket into its device, with its own source and with others', and wants only its own
// to arrive.
func (w *world) spoofs(from, at, to string, own4, own6 netip.Addr, list []spoof) {
	w.t.Helper()
	tape := w.record(at)
	var sources []netip.Addr
	for _, s := range list {
		sources = append(sources, netip.MustParseAddr(s.source))
	}
	sources = append(sources, own4, own6)
	w.must(w.injects(from, to, sources))
	number := func(i int) []byte { return []byte(spoofMark + strconv.Itoa(i) + ".") }
	all := func() []byte { return bytes.Join(tape.Stop(), nil) }
	<-time.After(time.Second) // what comes later than that would be a failure unseen, never a false one
	seen := all()
	for i, s := range list {
		if bytes.Contains(seen, number(i)) {
			w.t.Errorf("a packet with the source of %s (%s) got through", s.what, s.source)
		}
	}
	if !bytes.Contains(seen, number(len(list))) {
		w.t.Error("not even a packet with the own source got through")
	}
}

// injects sends a UDP packet of each source into a box's device.
func (w *world) injects(from, to string, sources []netip.Addr) error {
	return w.box[from].Enter(func() error {
		link, err := net.InterfaceByName("skywire0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var errs []error
		for i, src := range sources {
			dst, proto := netip.MustParseAddr(to), uint16(unix.ETH_P_IP)
			if src.Is6() {
				dst, proto = netip.MustParseAddr(netIPv6), unix.ETH_P_IPV6
			}
			b := spoofed(src, dst, spoofMark+strconv.Itoa(i)+".")
			for range 3 {
				errs = append(errs, unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8, Ifindex: link.Index}))
			}
		}
		return errors.Join(errs...)
	})
}

// spoofed makes an IP packet with UDP in it.
func spoofed(src, dst netip.Addr, payload string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 7777)
	udp = binary.BigEndian.AppendUint16(udp, 7777)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(binary.BigEndian.AppendUint16(udp, 0), payload...)
	sum := func(s uint32, b []byte) uint32 {
		for ; len(b) > 1; b = b[2:] {
			s += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			s += uint32(b[0]) << 8
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return s
	}
	check := sum(sum(uint32(unix.IPPROTO_UDP)+uint32(len(udp)), append(src.AsSlice(), dst.AsSlice()...)), udp)
	binary.BigEndian.PutUint16(udp[6:], ^uint16(check))
	if src.Is4() {
		h := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(udp)))
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum(0, h)))
		return append(h, udp...)
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_UDP, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(len(udp)))
	return append(append(append(h, src.AsSlice()...), dst.AsSlice()...), udp...)
}
