package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/store"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"host:1":                       "udp://host:1",
		"host":                         "udp://host:7667",
		"udp://[2001:db8::1]:7":        "udp://[2001:db8::1]:7",
		"tcp://host":                   "tcp://host:7667",
		"tcp://:4443":                  "tcp://:4443",
		"wss://host":                   "wss://host:443/",
		"wss://host/a/b?c":             "wss://host:443/a/b?c",
		"wss://[::1]:8/x":              "wss://[::1]:8/x",
		"ws://127.0.0.1:80/x":          "ws://127.0.0.1:80/x",
		"sctp://host:1":                "",
		"tcp://host:70000":             "",
		"tcp://host:http":              "",
		"wss://host/a b":               "",
		"wss://host/\r\nX: y":          "",
		"wss://h/" + longPath(maxPath): "",
		"wss://a:b:c/":                 "",
	} {
		a, err := parseAddress(in)
		if got := a.String(); err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func longPath(n int) string { return strings.Repeat("a", n) }

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"host:1", "tcp://[::1]:2", "wss://h/p", "udp://:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(a.path, "\r\n ") {
			t.Errorf("%q has the path %q", s, a.path)
		}
	})
}

func TestDirect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host, list string
		want       bool
	}{
		{"box.example", "", false},
		{"localhost", "", true},
		{"127.0.0.1", "", true},
		{"box.example", "*", true},
		{"box.example", "other, box.example", true},
		{"box.example", ".example", true},
		{"box.example", "*.example", true},
		{"box.example", "example", true},
		{"boxexample", "example", false},
		{"192.0.2.7", "192.0.2.0/24", true},
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "10.0.0.0/8", false},
		{"192.0.2.7", "7", false},
	} {
		if got := direct(c.host, c.list); got != c.want {
			t.Errorf("%s with %q: %v", c.host, c.list, got)
		}
	}
}

func TestStreamsOf(t *testing.T) {
	t.Parallel()
	at := forward.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::7]:5000")}
	got := streamsOf([]string{"udp://192.0.2.1:1", "tcp://:4443", "tcp://:0", "wss://192.0.2.9/x", "wss://name.example/x", "ws://:80/", "junk://"}, at)
	if want := "[tcp://[2001:db8::7]:4443 wss://192.0.2.9:443/x]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	at.Socket = forward.FirstWSS // a proxy's address perhaps
	if got := streamsOf([]string{"tcp://:4443"}, at); len(got) > 0 {
		t.Errorf("%v behind somebody", got)
	}
}

// TestOrder puts first what worked; where the network is not known yet, what worked anywhere.
func TestOrder(t *testing.T) {
	t.Parallel()
	a, b := key.Public{1}, key.Public{2}
	peers := []Peer{{Key: a, Addr: "h:1"}, {Key: a, Addr: "tcp://h:1"}, {Key: b, Addr: "tcp://g:1"}, {Key: a, Addr: "wss://h/"}}
	c := &carriers{n: &Node{}, ways: map[store.Way]string{{Network: [8]byte{9}, Peer: a}: "wss"}}
	got := c.order(peers)
	if got[0].Addr != "wss://h/" || got[1] != peers[0] || got[2] != peers[1] || len(got) != len(peers) {
		t.Errorf("%v", got)
	}
	var none *carriers
	if got := none.order(peers); len(got) != len(peers) || got[0] != peers[0] {
		t.Errorf("%v", got)
	}
}
