package socks

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	rules, err := ParseRules([]string{
		"user:ann,port:25=block",
		"user:ann=alice,bob",
		"suffix:example.com|.example.org,port:443|8000-8080=direct",
		"name:www.example.com=carol",
		"cidr:192.168.0.0/16|2001:db8::/32|10.0.0.1=direct",
		"from:192.168.7.0/24=exit",
		"net:udp,port:53=block",
		"any=dave",
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		q    Query
		want int
	}{
		{Query{Host: "x", Port: 25, User: "ann"}, 0},
		{Query{Host: "x", Port: 80, User: "ann"}, 1},
		{Query{Host: "example.com", Port: 443}, 2},
		{Query{Host: "A.Example.ORG.", Port: 8000}, 2},
		{Query{Host: "badexample.com", Port: 443}, 7},
		{Query{Host: "www.example.com", Port: 80}, 3},
		{Query{Host: "192.168.1.1", Port: 80}, 4},
		{Query{Host: "::ffff:192.168.1.1", Port: 80}, 4},
		{Query{Host: "2001:db8::5", Port: 80}, 4},
		{Query{Host: "10.0.0.1", Port: 80}, 4},
		{Query{Host: "10.0.0.2", Port: 80}, 7},
		{Query{Host: "x", Port: 80, From: netip.MustParseAddr("::ffff:192.168.7.9")}, 5},
		{Query{Host: "x", Port: 53, UDP: true}, 6},
		{Query{Host: "x", Port: 53}, 7},
		{Query{Host: "com", Port: 443}, 7},
	}
	for _, tt := range tests {
		i, r := rules.Find(tt.q)
		if r == nil || i != tt.want {
			t.Errorf("%+v: rule %d, want %d", tt.q, i, tt.want)
		}
	}
	if _, r := rules[:7].Find(Query{Host: "x", Port: 1}); r != nil {
		t.Errorf("matched %q", r.Text)
	}
	if r := rules[1]; r.Action != Through || len(r.Exits) != 2 || r.Exits[1] != "bob" {
		t.Errorf("exits of %q: %v", r.Text, r.Exits)
	}
}

func TestRulesMalformed(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "=", "any", "any=", "=direct", "suffix:=direct", "port:x=direct", "port:5-1=direct", "port:70000=direct",
		"cidr:1.2.3=direct", "net:icmp=block", "colour:red=direct", "any=a,,b", "any=a b", "suffix:a|=direct",
	} {
		if r, err := ParseRule(s); !errors.Is(err, ErrRule) {
			t.Errorf("%q: %+v, %v; want %v", s, r, err, ErrRule)
		}
	}
	if _, err := ParseRules(make([]string, MaxRules+1)); !errors.Is(err, ErrRule) {
		t.Errorf("too many: %v", err)
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("user:ann,port:25=block", "example.com")
	f.Add("suffix:example.com|a,cidr:10.0.0.0/8=a,b", "10.0.0.1")
	f.Fuzz(func(t *testing.T, s, host string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		Rules{r}.Find(Query{Host: host})
		_ = Rules{r}.PAC("127.0.0.1:1080")
	})
}

func FuzzParseRules(f *testing.F) {
	f.Add("any=direct\nport:1=block")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseRules(strings.Split(s, "\n")) })
}

// TestPAC runs the script where there is something to run it.
func TestPAC(t *testing.T) {
	t.Parallel()
	rules, err := ParseRules([]string{
		"user:ann=alice", "suffix:example.com,port:443=direct", "net:udp=block", "cidr:10.0.0.0/8=direct", "name:a.test=block", "port:81=direct",
	})
	if err != nil {
		t.Fatal(err)
	}
	script := rules[1:].PAC("127.0.0.1:1080")
	if got := rules.PAC("h:1"); !strings.Contains(got, "if (true) return proxy;") {
		t.Errorf("a rule by user has to be the proxy's to decide:\n%s", got)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs Node.js")
	}
	tests := []struct{ url, host, want string }{
		{"https://www.example.com/", "www.example.com", "DIRECT"},
		{"http://www.example.com/", "www.example.com", "PROXY 127.0.0.1:1080"},
		{"https://badexample.com/", "badexample.com", "PROXY 127.0.0.1:1080"},
	}
	for _, tt := range tests {
		js := script + "\nfunction isInNet(){return false}\nconsole.log(FindProxyForURL(" + quote(tt.url) + "," + quote(tt.host) + "))"
		out, err := exec.CommandContext(t.Context(), node, "-e", js).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.url, out, err, tt.want)
		}
	}
}
