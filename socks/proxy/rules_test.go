package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr("10.1.0.1")}
	}
	mesh := netip.MustParsePrefix("fd12:3456:789a::/48")
	const ok, no = true, false
	tests := []struct {
		name, rules string
		network     string
		host        string // as the client named it; an address stands for itself
		addr        string // what the name leads to
		port        uint16
		want        bool
	}{
		{"default", "", "tcp", "example.com", "1.1.1.1", 443, ok},
		{"default SMTP", "", "tcp", "example.com", "1.1.1.1", 25, no},
		{"default SMTP over UDP", "", "udp", "example.com", "1.1.1.1", 25, ok},
		{"default SMTP by NAT64", "", "tcp", "", "64:ff9b::101:101", 25, no},
		{"SMTP opened", "allow tcp *:25", "tcp", "example.com", "1.1.1.1", 25, ok},
		{"SMTP opened for a name", "allow mail.example.com:25", "tcp", "MAIL.example.com.", "1.1.1.1", 25, ok},
		{"SMTP opened for another name", "allow mail.example.com:25", "tcp", "example.com", "1.1.1.1", 25, no},
		{"port", "deny tcp *:6000-6063", "tcp", "a.b", "1.1.1.1", 6001, no},
		{"port beside", "deny tcp *:6000-6063", "tcp", "a.b", "1.1.1.1", 6064, ok},
		{"port of the other protocol", "deny tcp *:53", "udp", "", "1.1.1.1", 53, ok},
		{"first match", "allow 1.1.1.1|deny 1.0.0.0/8", "tcp", "", "1.1.1.1", 80, ok},
		{"second match", "allow 1.1.1.1|deny 1.0.0.0/8", "tcp", "", "1.1.1.2", 80, no},
		{"network behind a name", "deny 1.0.0.0/8", "tcp", "a.b", "1.1.1.2", 80, no},
		{"network in NAT64", "deny 1.0.0.0/8", "tcp", "", "64:ff9b::101:101", 80, no},
		{"network, v4-mapped", "deny 1.0.0.0/8", "tcp", "", "::ffff:1.1.1.1", 80, no},
		{"6to4 as such", "deny 2002::/16", "tcp", "", "2002:101:101::1", 80, no},
		{"IPv6 with ports", "deny [2600::/16]:80-90", "tcp", "", "2600::1", 85, no},
		{"IPv6 with other ports", "deny [2600::1]:80", "tcp", "", "2600::1", 81, ok},
		{"IPv6 without ports", "deny 2600::1", "tcp", "", "2600::1", 81, no},
		{"names only", "allow .example.com|deny *", "tcp", "www.example.com", "1.1.1.1", 443, ok},
		{"names only, the name itself", "allow *.example.com|deny *", "tcp", "example.com", "1.1.1.1", 443, ok},
		{"names only, another", "allow .example.com|deny *", "tcp", "notexample.com", "1.1.1.1", 443, no},
		{"names only, by address", "allow .example.com|deny *", "tcp", "", "1.1.1.1", 443, no},
		{"a name opens nothing local", "allow .example.com", "tcp", "www.example.com", "10.2.3.4", 443, no},
		{"* opens nothing local", "allow *", "tcp", "", "10.2.3.4", 443, no},
		{"a wide network opens nothing local", "allow 0.0.0.0/0", "tcp", "", "10.2.3.4", 443, no},
		{"a local network", "allow 10.2.0.0/16:443", "tcp", "intra.example", "10.2.3.4", 443, ok},
		{"a local network, another port", "allow 10.2.0.0/16:443", "tcp", "", "10.2.3.4", 444, no},
		{"a local network, another", "allow 10.2.0.0/16", "tcp", "", "10.3.3.4", 443, no},
		{"a local network does not open the box", "allow 10.1.0.0/16", "tcp", "", "10.1.0.1", 443, no},
		{"the box by its address", "allow 10.1.0.1:443", "tcp", "", "10.1.0.1", 443, ok},
		{"the box's public address", "allow 8.8.4.4", "tcp", "", "8.8.4.4", 443, ok},
		{"loopback by its address", "allow 127.0.0.1:8080", "tcp", "localhost", "127.0.0.1", 8080, ok},
		{"the mesh stays closed", "allow fd12:3456:789a::1", "tcp", "", "fd12:3456:789a::1", 80, no},
		{"nowhere stays closed", "allow 224.0.0.1|allow 0.0.0.0", "udp", "", "224.0.0.1", 80, no},
		{"a local network for UDP", "allow udp 192.168.7.0/24:53", "udp", "", "192.168.7.1", 53, ok},
		{"a local network for UDP, not TCP", "allow udp 192.168.7.0/24:53", "tcp", "", "192.168.7.1", 53, no},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var lines []string
			if tt.rules != "" {
				lines = strings.Split(tt.rules, "|")
			}
			rules, err := parseRules(lines)
			if err != nil {
				t.Fatal(err)
			}
			p := newPolicy(false, mesh, own, rules...)
			d := dest{network: tt.network, name: foldName(tt.host), port: tt.port}
			err = p.CheckName(d)
			if err == nil || d.name == "" {
				err = p.Check(d, netip.MustParseAddr(tt.addr))
			}
			if (err == nil) != tt.want {
				t.Errorf("%v, want open: %t", err, tt.want)
			}
			if err != nil && !errors.Is(err, ErrPolicy) {
				t.Errorf("%v is no ErrPolicy", err)
			}
		})
	}
}

// TestCheckName refuses what a rule denies by name without a question to anybody, and leaves what hangs on the address.
func TestCheckName(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]bool{
		"deny .ads.example": false, "deny tcp *.ads.example:443": false, "deny udp .ads.example": true,
		"allow .ads.example|deny *": true, "deny *": false, "allow 1.0.0.0/8|deny *": true, "allow a.b|deny *": false,
	} {
		parsed, err := parseRules(strings.Split(rules, "|"))
		if err != nil {
			t.Fatal(err)
		}
		err = newPolicy(false, netip.Prefix{}, nil, parsed...).CheckName(dest{network: "tcp", name: "x.ads.example", port: 443})
		if (err == nil) != want {
			t.Errorf("%s: %v, want open: %t", rules, err, want)
		}
	}
}

func TestRulesRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", "allow", "permit *", "deny icmp *", "deny tcp * extra", "deny 1.2.3.4:99999", "deny 1.2.3.4:80-70", "deny 1.2.3.4:", "deny *:-5",
		"deny 1.2.3.4/33", "deny 1.2.3", "deny 300.1.1.1", "deny [::1", "deny *example.com", "deny .", "deny exam ple", "deny fe80::1%eth0", "deny a/b", "deny :80", "deny :0", "deny *:0", "deny []", "deny ..a/",
	} {
		if r, err := parseRule(line); !errors.Is(err, ErrRule) {
			t.Errorf("%q: %+v, %v", line, r, err)
		}
	}
	if _, err := parseRules(make([]string, maxRules+1)); !errors.Is(err, ErrRule) {
		t.Errorf("too many: %v", err)
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"deny tcp *:25", "allow [2001:db8::/32]:80-90", "allow .example.com", "deny udp 10.0.0.0/8:53", "deny [:", "allow *.:1", "deny :0"} {
		f.Add(s)
	}
	a := netip.MustParseAddr("10.1.2.3")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRule(s)
		if err != nil {
			return
		}
		if r.first > r.last || r.name != foldName(r.name) {
			t.Errorf("%q: %+v", s, r)
		}
		// Nothing opens 10.1.2.3 but a rule with a network in 10.0.0.0/8.
		p := newPolicy(false, netip.Prefix{}, nil, r)
		if p.Check(dest{network: "tcp", name: r.name, port: max(r.first, 1)}, a) == nil && !liesIn(r.prefix, netip.MustParsePrefix("10.0.0.0/8")) {
			t.Errorf("%q opens %s", s, a)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add("load=3 connections=4")
	f.Add("load=-1 x=")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := loadOf(&Verdict{verdictLoad, s})
		if l.Percent < 0 || l.Percent > 100 || l.Connections < 0 {
			t.Errorf("%q: %+v, %t", s, l, ok)
		}
	})
}

func TestLoad(t *testing.T) {
	t.Parallel()
	want := Load{Percent: 37, Connections: 12}
	if got, ok := loadOf(loadVerdict(want)); !ok || got != want {
		t.Errorf("%+v, %t", got, ok)
	}
	if _, ok := loadOf(&Verdict{verdictBusy, "load=3"}); ok {
		t.Error("a refusal is no load")
	}
	if _, ok := loadOf(nil); ok {
		t.Error("nothing is no load")
	}
	for s, want := range map[string]int{"0.00 0 0": 0, "2.00 0 0": 50, "12.34 1 1": 100, "x": 0, "": 0, "1": 0, "-1.00 ": 0} {
		if got := loadAverage(s, 2); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	if l := loadNow(900, 1000); l.Percent < 90 || l.Connections != 900 {
		t.Errorf("%+v", l)
	}
}
