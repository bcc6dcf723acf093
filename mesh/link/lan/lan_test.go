package lan

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
)

func publicKey(t testing.TB, n byte) key.Public {
	t.Helper()
	for seed := ([32]byte{n, 9}); ; seed[2]++ {
		if k, err := key.FromSeed(seed); err == nil {
			return k.Public()
		}
	}
}

// node is a LAN without sockets.
type node struct {
	*LAN
	self    key.Public
	said    Said
	friends []Friend
	found   []Found
}

func newNode(t testing.TB, n byte, network key.NetworkID) *node {
	t.Helper()
	x := &node{self: publicKey(t, n)}
	l, err := New(Config{
		Self: x.self, Network: network, Say: func() Said { return x.said }, Friends: func() []Friend { return x.friends },
		Found: func(f Found) { x.found = append(x.found, f) }, Random: func(b []byte) { _, _ = rand.Read(b) },
	})
	if err != nil {
		t.Fatal(err)
	}
	x.LAN = l
	l.join(nil, []Interface{{Index: 3, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/24"), netip.MustParsePrefix("fe80::9/64")}}})
	return x
}

// wire is a way that keeps what was sent.
type wire struct {
	sent [][]byte
	on   []string
}

func (w *wire) join(Interface) error { return nil }
func (w *wire) close()               {}
func (w *wire) send(i Interface, b []byte) error {
	w.sent, w.on = append(w.sent, bytes.Clone(b)), append(w.on, i.Name)
	return nil
}

func (w *wire) receive([]byte) (int, netip.AddrPort, error) { select {} }

func (x *node) says(s Said) []byte {
	x.said = s
	w := &wire{}
	x.speak([]way{w})
	if len(w.sent) == 0 {
		return nil
	}
	return w.sent[0]
}

func from(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestNetworkBeacon(t *testing.T) {
	t.Parallel()
	home, other := key.Cluster(publicKey(t, 200)), key.Cluster(publicKey(t, 201))
	a, b, stranger := newNode(t, 1, home), newNode(t, 2, home), newNode(t, 3, other)
	raw := a.says(Said{Port: 7667, Network: true})
	for _, x := range []*node{a, b, stranger} {
		x.hear(raw, from("10.0.0.1:7666"), time.Now())
	}
	if len(a.found)+len(stranger.found) > 0 {
		t.Error("heard by itself, or by a stranger")
	}
	if len(b.found) != 1 || b.found[0].Key != a.self || b.found[0].Addr != from("10.0.0.1:7667") || b.found[0].Interface.Name != "eth0" {
		t.Errorf("%+v", b.found)
	}
	if bytes.Contains(raw, a.self[:]) || bytes.Contains(raw, home[:4]) {
		t.Error("the beacon tells the key or the network")
	}
	if again := a.says(Said{Port: 7667, Network: true}); bytes.Equal(raw[1:17], again[1:17]) || bytes.Equal(raw[headLen:headLen+48], again[headLen:headLen+48]) {
		t.Error("two beacons of one node look alike")
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		b.found = nil
		b.hear(bad, from(fmt.Sprintf("10.0.0.%d:7666", 20+i%200)), time.Now().Add(time.Duration(i)*time.Second))
		if len(b.found) > 0 {
			t.Fatalf("byte %d altered, and still heard", i)
		}
	}
}

func TestFriendBeacon(t *testing.T) {
	t.Parallel()
	a, b, c := newNode(t, 1, key.Open()), newNode(t, 2, key.Open()), newNode(t, 3, key.Open())
	ab, ac := [32]byte{1}, [32]byte{2}
	b.friends = []Friend{{publicKey(t, 90), [32]byte{7}}, {a.self, ab}}
	c.friends = []Friend{{a.self, [32]byte{3}}} // it lists a, and a does not list it
	raw := a.says(Said{Port: 7667, Friends: []Friend{{b.self, ab}, {publicKey(t, 91), ac}}})
	for _, x := range []*node{b, c} {
		x.hear(raw, from("10.0.0.1:7666"), time.Now())
	}
	if len(b.found) != 1 || b.found[0].Key != a.self || len(c.found) != 0 {
		t.Errorf("%+v %+v", b.found, c.found)
	}
	a.friends = []Friend{{b.self, ab}} // reflected to its sender it says nothing
	a.hear(raw, from("10.0.0.2:7666"), time.Now())
	if len(a.found) > 0 {
		t.Error("heard itself")
	}
	if raw := a.says(Said{Port: 7667}); raw != nil {
		t.Error("a beacon for nobody")
	}
	if raw := a.says(Said{Network: true}); raw != nil {
		t.Error("a beacon without a port")
	}
	var many []Friend
	for i := range 3 * MaxFriends {
		many = append(many, Friend{Secret: [32]byte{byte(i), 1}})
	}
	if raw := a.says(Said{Port: 1, Friends: many}); len(raw) != MaxBeacon {
		t.Errorf("%d bytes", len(raw))
	}
}

func TestWhoIsHeard(t *testing.T) {
	t.Parallel()
	a := newNode(t, 1, key.Open())
	for _, c := range []struct {
		name, from string
		want       bool
	}{
		{"neighbour", "10.0.0.1:9", true},
		{"link-local", "[fe80::1%eth0]:9", true},
		{"from beyond", "10.0.1.1:9", false},
		{"IPv6 from beyond", "[2001:db8::1]:9", false},
		{"unknown interface", "[fe80::1%eth7]:9", false},
		{"itself a group", "239.1.1.1:9", false},
		{"nobody", "0.0.0.0:9", false},
		{"loopback", "127.0.0.1:9", false},
	} {
		b := newNode(t, 2, key.Open())
		b.hear(a.says(Said{Port: 7667, Network: true}), from(c.from), time.Now())
		if got := len(b.found) == 1; got != c.want {
			t.Errorf("%s: heard %v", c.name, got)
		}
	}
}

// TestStorm: however many beacons come, true or not, few are looked at, an address is reported rarely, and memory is bounded.
func TestStorm(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, 1, key.Open()), newNode(t, 2, key.Open())
	now := time.Now()
	for i := range 100_000 {
		at := now.Add(time.Duration(i) * 100 * time.Microsecond) // ten seconds
		raw := Beacon{Port: uint16(i%60000 + 1), Random: [16]byte{byte(i), byte(i >> 8)}}
		raw.forNetwork(key.Open(), a.self)
		b.hear(raw.Append(nil), from("10.0.0.1:7666"), at)
	}
	if n := len(b.found); n > hearBurst+10*hearRate+1 {
		t.Errorf("%d reports in ten seconds", n)
	}
	if n := len(b.reported); n > maxHeard {
		t.Errorf("%d addresses remembered", n)
	}
	b.found = nil
	raw := a.says(Said{Port: 7, Network: true})
	for i := range 100 {
		b.hear(raw, from("10.0.0.3:7666"), now.Add(time.Minute+time.Duration(i)*100*time.Millisecond))
	}
	if n := len(b.found); n != 5 {
		t.Errorf("one node reported %d times in ten seconds", n)
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	sum := time.Duration(0)
	for round := range 10 {
		sum += pause(round, true)
	}
	if sum != 3*time.Second+7*beaconLonely || pause(3, false) != beaconSteady {
		t.Error(sum, pause(3, false))
	}
}

// TestUpdate: of updates that nobody took yet the newest counts.
func TestUpdate(t *testing.T) {
	t.Parallel()
	l := newNode(t, 1, key.Open()).LAN
	for i := range 5 {
		l.Update([]Interface{{Index: i}})
		l.Speak()
	}
	if got := <-l.news; got[0].Index != 4 {
		t.Error(got)
	}
}

// TestSockets runs two on the real loopback stack of this machine's first multicast interface, if it has one; that they hear each
// other is for the tests in namespaces, this one is about starting, joining and ending.
func TestSockets(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for n := range byte(2) {
		x := newNode(t, 10+n, key.Cluster(publicKey(t, 100)))
		x.c.Port = 7999
		x.c.Friends = func() []Friend { return nil }
		x.c.Found = func(Found) {}
		x.Update([]Interface{{Index: 1, Name: "lo", Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}})
		go func() { done <- x.Run(ctx) }()
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestRunWithoutSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newNode(t, 1, key.Open())
		x.said = Said{Port: 7667, Network: true, Lonely: true}
		w := &wire{}
		rounds := 0
		for end := time.Now().Add(time.Minute); time.Now().Before(end); rounds++ {
			time.Sleep(pause(rounds, x.speak([]way{w})))
		}
		if rounds != 15 || len(w.sent) != rounds {
			t.Errorf("%d rounds in a lonely minute, %d sent", rounds, len(w.sent))
		}
	})
}

func FuzzParseBeacon(f *testing.F) {
	a := newNode(f, 1, key.Open())
	f.Add(a.says(Said{Port: 7667, Network: true}))
	f.Add(a.says(Said{Port: 7667, Friends: []Friend{{a.self, [32]byte{1}}, {a.self, [32]byte{2}}}}))
	f.Add(make([]byte, MinBeacon))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseBeacon(b)
		if err != nil {
			return
		}
		if again := got.Append(nil); !bytes.Equal(again, b[:len(again)]) || len(bytes.Trim(b[len(again):], "\x00")) > 0 {
			t.Errorf("%x became %x", b, again)
		}
		got.sender(key.Open(), []Friend{{a.self, [32]byte{1}}})
	})
}
