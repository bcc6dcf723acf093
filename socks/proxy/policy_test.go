package proxy

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"skywire/socks"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr("2600::99")}
	}
	mesh := netip.MustParsePrefix("fd12:3456:789a::/48")
	strict, loose := newPolicy(false, mesh, own), newPolicy(true, mesh, own)
	const (
		always  = "always"
		private = "private" // with --allow-private only
		never   = "never"
	)
	tests := map[string]string{
		"1.1.1.1": always, "93.184.216.34": always, "2606:4700:4700::1111": always, "::ffff:1.1.1.1": always,
		"64:ff9b::101:101": always, "2002:101:101::1": always, "100.63.255.255": always, "100.128.0.1": always,
		"172.15.255.255": always, "172.32.0.1": always, "192.167.1.1": always, "11.0.0.1": always, "169.253.1.1": always,

		"10.0.0.1": private, "10.255.255.255": private, "172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private,
		"127.0.0.1": private, "127.1.2.3": private, "::1": private, "169.254.169.254": private, "fe80::1": private, "fe80::1%eth0": private,
		"100.64.0.1": private, "100.127.255.255": private, "198.18.0.1": private, "fd00::1": private, "fdff::1": private, "fc00::1": private,
		"fec0::1": private, "::ffff:10.0.0.1": private, "::ffff:127.0.0.1": private, "::ffff:169.254.169.254": private,
		"64:ff9b::a00:1": private, "64:ff9b::7f00:1": private, "64:ff9b:1::c0a8:101": private, "64:ff9b:1:a00:0:100:808:808": private, "2002:a00:1::": private, "2002:7f00:1::1": private,
		"::10.0.0.1": private, "::ffff:0:10.0.0.1": private,
		"8.8.4.4": private, "::ffff:8.8.4.4": private, "2600::99": private, "64:ff9b::808:404": private,

		"0.0.0.0": never, "0.1.2.3": never, "::": never, "224.0.0.1": never, "239.1.1.1": never, "ff02::1": never, "255.255.255.255": never,
		"240.0.0.1": never, "192.0.2.1": never, "2001:db8::1": never, "100::1": never, "2001::1": never, "::ffff:0.0.0.0": never,
		"::ffff:224.0.0.1": never, "64:ff9b::e000:1": never, "fd12:3456:789a::1": never, "fd12:3456:789a:ffff::1": never,
	}
	for s, want := range tests {
		a := netip.MustParseAddr(s)
		to := dest{network: "tcp", port: 443}
		es, el := strict.Check(to, a), loose.Check(to, a)
		for _, err := range []error{es, el} {
			if err != nil && !errors.Is(err, ErrPolicy) {
				t.Errorf("%s: %v is no ErrPolicy", s, err)
			}
			if err != nil && strings.Contains(err.Error(), s) && len(s) > 4 {
				t.Errorf("%s: the refusal names the address: %v", s, err)
			}
		}
		if (es == nil) != (want == always) {
			t.Errorf("%s, closed to private: %v, want %s", s, es, want)
		}
		if (el == nil) != (want != never) {
			t.Errorf("%s, open to private: %v, want %s", s, el, want)
		}
	}
	if err := strict.Check(dest{network: "tcp", port: 443}, netip.Addr{}); !errors.Is(err, ErrPolicy) {
		t.Errorf("no address: %v", err)
	}
}

// TestRebinding lets a name change its answer: what counts is the address that is connected to.
func TestRebinding(t *testing.T) {
	t.Parallel()
	touched := make(chan struct{}, 16)
	a := target(t, func(*net.TCPConn) { touched <- struct{}{} })
	port := netip.MustParseAddrPort(a).Port()
	r := names(t, map[string][]string{
		"rebind.test.": {"203.0.113.7", "127.0.0.1"}, // the documentation network answers nobody
		"inside.test.": {"127.0.0.1"},
	})
	d := newDialer(newResolver(r), newPolicy(false, netip.Prefix{}, nil), 2*time.Second)
	for _, host := range []string{"rebind.test", "rebind.test", "inside.test", "localhost", "127.0.0.1", "::ffff:127.0.0.1", "0x7f.1", "127.1", "2130706433", "0"} {
		c, err := d.dial(t.Context(), Header{Host: host, Port: port})
		if err == nil {
			c.Close()
			t.Errorf("%s: connected", host)
			continue
		}
		v := verdictOf(Header{Host: host, Port: port}, err)
		if host != "127.1" && host != "0x7f.1" && host != "2130706433" && host != "0" && v.Code != socks.NotAllowed {
			t.Errorf("%s: verdict %v (%v), want %v", host, v.Code, err, socks.NotAllowed)
		}
		if strings.Contains(v.Text, "127.0.0.1") && !strings.Contains(host, "127.0.0.1") {
			t.Errorf("%s: the verdict tells what the name resolves to: %s", host, v.Text)
		}
	}
	select {
	case <-touched:
		t.Error("the target was touched")
	default:
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for _, h := range []Header{
		{Host: "example.com", Port: 443},
		{Host: "2001:db8::1", Port: 1, First: []byte("hello")},
		{Host: strings.Repeat("a", 255), Port: 65535, First: bytes.Repeat([]byte{0xff}, socks.MaxFirst)},
	} {
		b := h.Append([]byte("before"))[len("before"):]
		if len(b) > 4096 {
			t.Errorf("%d bytes are more than a stream's header holds", len(b))
		}
		got, err := ParseHeader(b)
		if err != nil || got.Host != h.Host || got.Port != h.Port || !bytes.Equal(got.First, h.First) {
			t.Errorf("got %+v, %v; want %+v", got, err, h)
		}
	}
	for name, b := range map[string]string{
		"nothing": "", "short": "\x01\x00\x50", "version": "\x02\x00\x50\x01a", "length": "\x01\x00\x50\x02a", "no host": "\x01\x00\x50\x00",
		"port 0": "\x01\x00\x00\x01a", "space": "\x01\x00\x50\x01 ", "zone": "\x01\x00\x50\x09fe80::1%0",
		"too much": "\x01\x00\x50\x01a" + strings.Repeat("x", socks.MaxFirst+1),
	} {
		if h, err := ParseHeader([]byte(b)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(Header{Host: "example.com", Port: 443}.Append(nil))
	f.Add(Header{Host: "2001:db8::1", Port: 1, First: []byte("GET / HTTP/1.0\r\n\r\n")}.Append(nil))
	f.Add([]byte("\x02\x00\x50\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

func FuzzListeners(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n   0: 0100007F:0438 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0\n", uint16(1080))
	f.Fuzz(func(t *testing.T, s string, port uint16) {
		for _, i := range listeners(s, port) {
			if i == "" {
				t.Error("empty inode")
			}
		}
	})
}
