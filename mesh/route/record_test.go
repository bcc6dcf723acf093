package route

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"skywire/mesh/key"
)

// identity makes the n-th private key of a test: seeds whose key has the wrong sign bit are passed over.
func identity(t testing.TB, n int) *key.Private {
	t.Helper()
	for salt := byte(0); salt < 255; salt++ {
		var seed [32]byte
		binary.BigEndian.PutUint64(seed[:], uint64(n))
		seed[31] = salt
		if p, err := key.FromSeed(seed); err == nil {
			return p
		}
	}
	t.Fatalf("no identity %d", n)
	return nil
}

func identities(t testing.TB, n int) []*key.Private {
	t.Helper()
	all := make([]*key.Private, n)
	for i := range all {
		all[i] = identity(t, i)
	}
	return all
}

func fullRecord(t testing.TB) *Record {
	t.Helper()
	r := &Record{
		Boot: 7, Number: 9, Made: 1_700_000_000, Name: "kitchen", Version: "1.0",
		Addrs: []string{"udp://10.0.0.1:4000", "tcp://example.org:443"},
		IPv4:  netip.MustParseAddr("100.64.0.7"),
		Services: []Service{
			{Name: "vpn", Type: "vpn", Port: 1, Meta: "exit"},
			{Name: "socks", Type: "socks"},
		},
		Unknown: []Item{{Type: 200, Value: []byte{1}}, {Type: 9, Value: nil}, {Type: 200, Value: []byte{0}}},
	}
	for i, p := range identities(t, 4)[1:] {
		r.Links = append(r.Links, Link{Peer: p.Public(), RTT: time.Duration(i) * time.Millisecond, Loss: 0.015, Capacity: 1000})
	}
	return r
}

func TestRecordComesBack(t *testing.T) {
	t.Parallel()
	p, r := identity(t, 0), fullRecord(t)
	raw := Sign(r, p, key.Open())
	got, err := ParseRecord(raw, key.Open())
	if err != nil {
		t.Fatal(err)
	}
	want, dropped := r.Fit()
	want.Key = p.Public()
	want.Unknown[0].Value = nil
	if got.Unknown[0].Value = nil; dropped != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v (dropped %d)", got, want, dropped)
	}
	if again := Sign(got, p, key.Open()); !bytes.Equal(again, raw) {
		t.Error("encodes to other bytes the second time")
	}
	if k, n, err := Peek(raw); k != p.Public() || n != 9 || err != nil {
		t.Errorf("peek: %v %d %v", k, n, err)
	}
	for i := range raw {
		raw[i] ^= 0xff
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the record shares memory with its bytes")
	}
}

func TestRecordOfAnotherNetworkOrKind(t *testing.T) {
	t.Parallel()
	p := identity(t, 0)
	raw := Sign(fullRecord(t), p, key.Open())
	if _, err := ParseRecord(raw, key.Cluster(p.Public())); !errors.Is(err, ErrSignature) {
		t.Errorf("other network: %v", err)
	}
	body := raw[:len(raw)-64]
	sig := p.Sign("setup", key.Open(), body)
	if _, err := ParseRecord(append(bytes.Clone(body), sig[:]...), key.Open()); !errors.Is(err, ErrSignature) {
		t.Errorf("other kind: %v", err)
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	raw := Sign(fullRecord(t), identity(t, 0), key.Open())
	for i := range raw {
		for bit := range 8 {
			b := bytes.Clone(raw)
			b[i] ^= 1 << bit
			if _, err := ParseRecord(b, key.Open()); err == nil {
				t.Fatalf("byte %d bit %d", i, bit)
			}
		}
	}
}

// TestNotCanonical signs bodies that say something in another way than Sign does.
func TestNotCanonical(t *testing.T) {
	t.Parallel()
	p := identity(t, 0)
	header := (&Record{Key: p.Public(), Number: 1}).appendBody(nil)
	item := func(kind byte, v string) []byte { return append(appendItem(nil, kind, len(v)), v...) }
	links := make([][]byte, 3)
	for i, k := range identities(t, 4)[1:] {
		pub := k.Public()
		links[i] = item(itemLink, string(pub[:])+strings.Repeat("\x00", 12))
	}
	lossy := bytes.Clone(links[0])
	binary.BigEndian.PutUint32(lossy[3+36:], 1_000_001)
	low, high := links[0], links[1]
	if bytes.Compare(low, high) > 0 {
		low, high = high, low
	}
	many := func(n int, make func(i int) []byte) (all []byte) {
		for i := range n {
			all = append(all, make(i)...)
		}
		return all
	}
	for name, items := range map[string][]byte{
		"types fall":            append(item(2, "v"), item(1, "n")...),
		"name twice":            append(item(1, "a"), item(1, "b")...),
		"empty name":            item(1, ""),
		"long name":             item(1, strings.Repeat("x", MaxName+1)),
		"control character":     item(1, "\x1b[2J"),
		"broken UTF-8":          item(1, "\xff"),
		"type 0":                item(0, "x"),
		"address twice":         append(item(3, "udp://a:1"), item(3, "udp://a:1")...),
		"address with a blank":  item(3, "udp://a: 1"),
		"nine addresses":        many(9, func(i int) []byte { return item(3, fmt.Sprintf("udp://a:%d", i)) }),
		"short link":            item(4, "x"),
		"links fall":            append(bytes.Clone(high), low...),
		"link twice":            append(bytes.Clone(low), low...),
		"loss above 1":          lossy,
		"link to no key":        item(4, strings.Repeat("\xff", 44)),
		"service cut short":     item(5, "\x00\x01\x05ab"),
		"service with no name":  item(5, "\x00\x01\x00\x00"),
		"services fall":         append(item(5, "\x00\x01\x01b\x00"), item(5, "\x00\x01\x01a\x00")...),
		"33 services":           many(33, func(i int) []byte { return item(5, fmt.Sprintf("\x00\x01\x02%02d\x00", i)) }),
		"IPv4 of 5 bytes":       item(6, "12345"),
		"IPv4 twice":            append(item(6, "1234"), item(6, "1234")...),
		"item cut short":        {1, 0, 9, 'x'},
		"header of item cut":    {1, 0},
		"unknown types fall":    append(item(9, "x"), item(8, "x")...),
		"link of unknown after": append(item(9, "x"), links[2]...),
	} {
		body := append(bytes.Clone(header), items...)
		sig := p.Sign(kind, key.Open(), body)
		if _, err := ParseRecord(append(body, sig[:]...), key.Open()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	body := append(bytes.Clone(header), item(250, strings.Repeat("x", MaxRecord))...)
	sig := p.Sign(kind, key.Open(), body)
	if _, err := ParseRecord(append(body, sig[:]...), key.Open()); !errors.Is(err, ErrFormat) {
		t.Errorf("too long: %v", err)
	}
}

// TestKeyThatSignsEverything offers a record under the identity point, whose one signature fits all.
func TestKeyThatSignsEverything(t *testing.T) {
	t.Parallel()
	one := key.Public{1}
	raw := append((&Record{Key: one, Number: 1}).appendBody(nil), append([]byte{1}, make([]byte, 63)...)...)
	if _, err := ParseRecord(raw, key.Open()); !errors.Is(err, ErrKey) {
		t.Errorf("got %v", err)
	}
}

func TestSignKeepsTheBounds(t *testing.T) {
	t.Parallel()
	p := identity(t, 0)
	r := &Record{Number: 1, Name: strings.Repeat("n", 200), Version: "v\n", IPv4: netip.MustParseAddr("::1")}
	for i := range 100 {
		r.Links = append(r.Links, Link{Peer: identity(t, i+1).Public(), RTT: time.Duration(i-1) * time.Hour, Loss: math.NaN(), Capacity: math.MaxUint64})
		r.Services = append(r.Services, Service{Name: fmt.Sprint("s", i), Meta: strings.Repeat("m", i%300)})
		r.Addrs = append(r.Addrs, fmt.Sprintf("udp://10.0.0.%d:1", i), "bad one")
		r.Unknown = append(r.Unknown, Item{Type: uint8(i), Value: make([]byte, 100)})
	}
	raw := Sign(r, p, key.Open())
	got, err := ParseRecord(raw, key.Open())
	if err != nil || len(raw) > MaxRecord {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if got.Name != "" || got.Version != "" || got.IPv4.IsValid() || len(got.Addrs) != MaxAddrs || len(got.Links) < MaxLinks/2 {
		t.Errorf("got %d addresses, %d links, %d services, name %q", len(got.Addrs), len(got.Links), len(got.Services), got.Name)
	}
	if len(r.Links) != 100 || r.Links[0].RTT >= 0 {
		t.Error("Sign changed what it was given")
	}
}

func FuzzParseRecord(f *testing.F) {
	p := identity(f, 0)
	f.Add(Sign(&Record{Number: 1}, p, key.Open()))
	f.Add(Sign(fullRecord(f), p, key.Open()))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Both what comes from outside and, to get past the signature, what our own key would sign.
		r, err := parseUnverified(b, true)
		if err != nil {
			return
		}
		if raw := append(r.appendBody(nil), b[len(b)-64:]...); !bytes.Equal(raw, b) {
			t.Errorf("%x encodes as %x", b, raw)
		}
		again, err := ParseRecord(Sign(r, p, key.Open()), key.Open())
		if err != nil {
			t.Fatal(err)
		}
		if again.Key = r.Key; !reflect.DeepEqual(again, r) {
			t.Errorf("got %+v\nwant %+v", again, r)
		}
	})
}
