package dns_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"skywire/tun/dns"
)

func TestReverseZones(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]string{
		"fd09:6c88:f521::/48": "1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa",
		"fd00::/7":            "c.f.ip6.arpa d.f.ip6.arpa",
		"fd00::/8":            "d.f.ip6.arpa",
		"100.64.0.0/16":       "64.100.in-addr.arpa",
		"100.64.0.0/15":       "64.100.in-addr.arpa 65.100.in-addr.arpa",
		"10.0.0.1/32":         "1.0.0.10.in-addr.arpa",
		"10.0.254.0/23":       "254.0.10.in-addr.arpa 255.0.10.in-addr.arpa",
	} {
		got := dns.ReverseZones(netip.MustParsePrefix(p))
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", p, got, want)
		}
	}
}

func TestParseMode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "system": "system", "exit": "exit", "off": "off", "9.9.9.9": "9.9.9.9", "9.9.9.9, 2620:fe::fe": "9.9.9.9 2620:fe::fe",
		"no": "error", "9.9.9.9,": "error", "0.0.0.0": "error", "9.9.9.9:53": "error", "224.0.0.1": "error",
	} {
		mode, resolvers, err := dns.ParseMode(in)
		got := mode
		if resolvers != nil {
			var words []string
			for _, r := range resolvers {
				words = append(words, r.Addr().String())
			}
			got = strings.Join(words, " ")
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseMode(f *testing.F) {
	for _, s := range []string{"", "exit", "9.9.9.9,2620:fe::fe", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, resolvers, err := dns.ParseMode(s); err != nil && resolvers != nil {
			t.Error(resolvers, err)
		}
	})
}

// Whatever is read as the name of an address is the one that it makes.
func FuzzParseReverse(f *testing.F) {
	for _, s := range []string{"7.0.64.100.in-addr.arpa", "1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa", "x.ip6.arpa", ".ip6.arpa", "01.in-addr.arpa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, bits, ok := dns.ParseReverse(s)
		if !ok {
			return
		}
		p, err := a.Prefix(bits)
		if err != nil || p.Addr() != a {
			t.Fatalf("%q: %s/%d: %v", s, a, bits, err)
		}
		if got := dns.ReverseZones(p); len(got) != 1 || got[0] != s {
			t.Errorf("%q: %v", s, got)
		}
	})
}

// Any message gets an answer that can be read, or none.
func FuzzAnswer(f *testing.F) {
	q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("web.alice.mesh."), Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET}}}
	for _, name := range []string{"alice.mesh.", ".", "mesh.", "_web._tcp.alice.mesh.", "x.1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa."} {
		q.Questions[0].Name = dnsmessage.MustNewName(name)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		edns(1232)(&q)
		if b, err = q.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		q.Additionals = nil
	}
	s, err := dns.New(dns.Config{Listen: []netip.AddrPort{loopback}, Names: names{}, Reverse: []netip.Prefix{netip.MustParsePrefix("fd09:6c88:f521::/48")}})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, tcp := range []bool{false, true} {
			a := s.Answer(t.Context(), b, tcp)
			if a == nil {
				continue
			}
			var m dnsmessage.Message
			if err := m.Unpack(a); err != nil || !m.Response {
				t.Fatalf("%x: %x: %v", b, a, err)
			}
			if !tcp && len(a) > 1232 {
				t.Errorf("%d bytes", len(a))
			}
		}
	})
}
