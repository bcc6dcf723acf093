package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
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
		{"another client", d.IPv4.String()},
		{"the server's LAN", "192.168.9.77"},
		{"the server", server.String()},
		{"a stranger", "203.0.113.9"},
		{"loopback", "127.0.0.1"},
		{"another node", w.address("d")},
		{"the server's LAN, IPv6", "2001:db8:9::77"},
		{"IPv4 in IPv6", "::ffff:192.168.9.77"},
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

// TestE2EVPNLimits: a client is held to its rate and its quota, and a restart of the server forgives nothing.
func TestE2EVPNLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vpsl")
	w.chain("s", "c")
	w.behind("s")
	w.reach("c", "s")
	words := []string{"vpn", "server", "--exit", "--allow", "any", "--rate", "8Mbit", "--quota", "10MB/day"}
	w.start("s", "vpn", words...)
	w.vpnStatus("s", vpnUpState)
	w.start("c", "vpn", "vpn", "client", "--server", w.key["s"], "--exit")
	w.vpnStatus("c", vpnConnected)

	rate := w.iperf("c", "net", netIPv4, "-t", "5") / 1e6
	t.Logf("%.1f Mbit/s of 8, and 8 Mbit at once", rate)
	if rate < 2 || rate > 10.5 {
		t.Errorf("%.1f Mbit/s get through, want about 8 and the burst of a second", rate)
	}
	l := w.listen("net", netIPv4+":81")
	out := w.dial("c", netIPv4+":81", 1)[0]
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	go func() { _, _ = io.Copy(out, neverEnding{}) }() // ends when out is closed
	usedUp := func(s vpn.Status) bool {
		return s.Server != nil && len(s.Server.Clients) == 1 && *s.Server.Clients[0].QuotaLeft == 0
	}
	st := w.vpnStatus("s", usedUp).Server.Clients[0]
	w.must(out.Close())
	if used := st.UpBytes + st.DownBytes; used != 10_000_000 {
		t.Errorf("%d bytes went through, of 10 MB", used)
	}
	if w.tries("c", netIPv4+":81") {
		t.Error("a client without quota gets out")
	}
	w.must(w.run["s vpn"].Stop(10 * time.Second))
	w.start("s", "vpn", words...)
	w.vpnStatus("s", usedUp)
	if w.tries("c", netIPv4+":81") {
		t.Error("a restart of the server gives quota")
	}
	w.pings("c", w.address("s")) // the mesh itself has no quota
}

// TestE2EVPNApart: clients do not reach each other through the server unless it says so, and a closed server shows nothing of
// itself.
func TestE2EVPNApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vpsa")
	w.boxes("s", "c", "d")
	w.hub("s", "c", "d")
	w.node("s")
	for _, n := range []string{"c", "d"} {
		w.node(n, "--peer", w.peer("s", "10.1.0.1"))
		w.reach(n, "s")
	}
	w.plain("lan")
	w.must(w.lab.Wire(w.end("s", "lan", "192.168.9.1/24"), w.end("lan", "eth0", lanIPv4+"/24")))
	w.must(w.box["lan"].IP("route add default via 192.168.9.1"))
	for _, b := range []string{"s", "d", "lan"} {
		w.listen(b, "[::]:80")
	}
	words := []string{"vpn", "server", "--subnet", "192.168.9.0/24", "--allow", "any"}
	w.start("s", "vpn", words...)
	w.vpnStatus("s", vpnUpState)
	for _, n := range []string{"c", "d"} {
		w.start(n, "vpn", "vpn", "client", "--server", w.key["s"], "--accept", "100.64.0.0/10")
		w.vpnStatus(n, vpnConnected)
	}
	other := w.vpnStatus("d", vpnConnected).Client.IPv4.String()
	self := w.address("s")
	check := func(addr string, want bool) {
		t.Helper()
		if got := w.tries("c", net.JoinHostPort(addr, "80")); got != want {
			t.Errorf("client reaches %s: %v, want %v", addr, got, want)
		}
	}
	check(lanIPv4, true)
	check(other, false)
	check(self, true)
	w.must(w.run["s vpn"].Stop(10 * time.Second))
	w.start("s", "vpn", append(words, "--client-to-client", "--closed")...)
	for _, n := range []string{"c", "d"} {
		w.vpnStatus(n, func(s vpn.Status) bool {
			return vpnConnected(s) && slices.Contains(s.Client.Subnets, vpn.DefaultPool())
		})
	}
	check(lanIPv4, true)
	check(other, true)
	check(self, false)
	check("192.168.9.1", false)
	w.pings("c", self)
}

// neverEnding reads as zeros.
type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestE2EVPNSubnets: vpn up takes a subnet of two servers; one goes, the other carries it, and the first does again.
func TestE2EVPNSubnets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vpsf")
	w.boxes("c", "s", "r")
	w.hub("c", "s", "r")
	w.plain("lan")
	for i, n := range []string{"s", "r"} {
		w.must(w.lab.Wire(w.end(n, "lan", fmt.Sprintf("10.9.%d.1/30", i)), w.end("lan", "to"+n, fmt.Sprintf("10.9.%d.2/30", i))),
			w.box[n].IP(fmt.Sprintf("route add 192.168.9.0/24 via 10.9.%d.2", i)))
	}
	w.must(w.box["lan"].IP("addr add "+lanIPv4+"/32 dev lo"), w.box["lan"].Forward())
	w.node("c")
	for _, n := range []string{"s", "r"} {
		w.node(n, "--peer", w.peer("c", "10.1.0.1"))
		w.reach("c", n)
		w.start(n, "vpn", "vpn", "server", "--subnet", "192.168.9.0/24", "--subnet", "192.168.9.0/25", "--subnet", "10.1.0.0/25", "--allow", w.key["c"])
		w.vpnStatus(n, vpnUpState)
	}
	w.start("c", "vpn", "vpn", "up", "--accept", "192.168.9.0/24@"+w.key["s"]+","+w.key["r"],
		"--accept", "192.168.9.0/25@"+w.key["r"], "--accept", "10.1.0.0/25@"+w.key["s"], "--accept", "172.20.0.0/16@"+w.key["s"])
	through := func(box string) func(vpn.Status) bool {
		return func(s vpn.Status) bool { return len(s.Accepted) == 4 && s.Accepted[0].Through == w.key[box] }
	}
	s := w.vpnStatus("c", through("s"))
	for i, want := range map[int]string{1: "overlaps 192.168.9.0/24", 2: "this box is on 10.1.0.0/24"} {
		if a := s.Accepted[i]; a.Through != "" || !strings.Contains(a.Refused, want) {
			t.Errorf("%+v, want %q", a, want)
		}
	}
	if a := s.Accepted[3]; a.Through != "" || !strings.Contains(a.Servers[0].Why, "does not offer") {
		t.Errorf("%+v", a)
	}
	w.pings("c", lanIPv4)
	ping, err := w.box["c"].Start("ping", "ping", "-D", "-i", "0.1", lanIPv4)
	w.must(err)
	w.wait("answers to ping", func(context.Context) error {
		if strings.Count(ping.Output(), "time=") < 5 {
			return fmt.Errorf("%q", ping.Tail(2))
		}
		return nil
	})
	before := lastAnswer(t, ping.Output())
	w.run["s node"].Kill()
	w.vpnStatus("c", through("r"))
	w.wait("answers through the other server", func(context.Context) error {
		if d := lastAnswer(t, ping.Output()).Sub(before); d < 2*time.Second {
			return fmt.Errorf("the last one %v after the kill", d)
		}
		return nil
	})
	if full() { // 10 s on purpose
		w.node("s", "--peer", w.peer("c", "10.1.0.1"))
		w.vpnStatus("c", through("s"))
		w.pings("c", lanIPv4)
	}
	ping.Kill()
	gap := longestSilence(t, ping.Output())
	t.Logf("longest silence: %v", gap)
	if gap > 10*time.Second {
		t.Errorf("silence of %v when one of two servers was killed", gap)
	}
}

// longestSilence is the longest time between two answers that ping -D printed.
func longestSilence(t *testing.T, out string) (longest time.Duration) {
	t.Helper()
	var last float64
	for _, m := range regexp.MustCompile(`(?m)^\[(\d+\.\d+)\].*time=`).FindAllStringSubmatch(out, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		if last > 0 {
			longest = max(longest, time.Duration((v-last)*1e9))
		}
		last = v
	}
	return longest
}

// TestE2EVPNSmall: an exit over links of 576 bytes on which no ICMP passes, and an internet with a narrow place: transfers
// come through, and who must not fragment is told how much fits, in both families.
func TestE2EVPNSmall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vpsm")
	w.boxes("s", "r", "c")
	w.must(
		w.lab.Wire(w.end("s", "next", "10.1.0.1/24"), w.end("r", "prev", "10.1.0.2/24")),
		w.lab.Wire(w.end("r", "next", "10.1.1.1/24"), w.end("c", "prev", "10.1.1.2/24")))
	for _, e := range []struct{ box, dev string }{{"s", "next"}, {"r", "prev"}, {"r", "next"}, {"c", "prev"}} {
		w.must(w.box[e.box].IP("link set " + e.dev + " mtu 576"))
	}
	for _, b := range []string{"s", "r", "c"} {
		w.must(w.box[b].NFT(`table inet noicmp { chain in { type filter hook input priority -10; iifname { "next", "prev" } meta l4proto { icmp, icmpv6 } drop; }; }`))
	}
	w.plain("hop", "net")
	for _, b := range []string{"s", "hop", "net"} {
		w.must(w.box[b].Sysctl("net.ipv6.conf.default.accept_dad=0"))
	}
	w.must(
		w.lab.Wire(w.end("s", "wan", "198.51.100.2/24", "2001:db8::2/64"), w.end("hop", "in", "198.51.100.1/24", "2001:db8::1/64")),
		w.lab.Wire(w.end("hop", "out", "203.0.113.1/24", "2001:db8:1::1/64"), w.end("net", "wan", "203.0.113.2/24", "2001:db8:1::2/64")),
		w.box["hop"].IP("link set out mtu 1280"), w.box["net"].IP("link set wan mtu 1280"), w.box["hop"].Forward(),
		w.box["s"].IP("route add default via 198.51.100.1"), w.box["s"].IP("-6 route add default via 2001:db8::1"),
		w.box["net"].IP("route add default via 203.0.113.1"), w.box["net"].IP("-6 route add default via 2001:db8:1::1"),
		w.box["net"].IP("addr add "+netIPv4+"/32 dev lo"), w.box["net"].IP("addr add "+netIPv6+"/128 dev lo"),
		w.box["hop"].IP("route add "+netIPv4+"/32 via 203.0.113.2"), w.box["hop"].IP("-6 route add "+netIPv6+"/128 via 2001:db8:1::2"))
	w.node("s")
	w.node("r", "--peer", w.peer("s", "10.1.0.1"))
	w.node("c", "--peer", w.peer("r", "10.1.1.1"))
	w.reach("c", "s")
	w.start("s", "vpn", "vpn", "server", "--exit", "--allow", "any")
	w.vpnStatus("s", vpnUpState)
	w.start("c", "vpn", "vpn", "client", "--server", w.key["s"], "--exit")
	w.vpnStatus("c", vpnConnected)
	for _, p := range []struct{ addr, most, over string }{ // with the headers: 1280, and 1400 of the tunnel
		{netIPv4, "1252", "1372"}, {netIPv6, "1232", "1352"},
	} {
		w.wait("a ping of 1280 bytes to "+p.addr, func(ctx context.Context) error {
			_, err := w.box["c"].Exec(ctx, "ping", "-c1", "-W2", "-M", "do", "-s", p.most, p.addr)
			return err
		})
		w.wait("word of the narrow place to "+p.addr, func(ctx context.Context) error {
			out, err := w.box["c"].Exec(ctx, "ping", "-c1", "-W2", "-M", "do", "-s", p.over, p.addr)
			if text := out + fmt.Sprint(err); !regexp.MustCompile(`mtu ?= ?1280`).MatchString(text) {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
		w.must(w.box["c"].IP("route flush cache"))
		w.checkStream("c", "net", p.addr, 1<<20)
	}
}
