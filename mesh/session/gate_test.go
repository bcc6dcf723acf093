package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

var home = netip.MustParseAddrPort("192.0.2.1:4000")

func newGate(t testing.TB, k *key.Private, threshold int) *Gate {
	t.Helper()
	g, err := NewGate(GateConfig{Identity: k, Network: key.Open(), Threshold: threshold, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func labelled(label *uint32) Answer {
	return func(key.Public, wire.Payload) (wire.Payload, uint32, error) {
		*label++
		return wire.Payload{Key: 1}, *label, nil
	}
}

func initFrame(t testing.TB, a Config, to key.Public, label uint32) (*Handshake, *Jar, []byte) {
	t.Helper()
	h, m1, err := Initiate(a, to, wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	j := NewJar(to)
	return h, j, j.Init(0, label, m1)
}

func TestGateHandshake(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 20)
	var label uint32 = 100
	h, j, frame := initFrame(t, a, b.Identity.Public(), 55)
	resp, p, err := g.Respond(0, home, false, b, frame, labelled(&label))
	if err != nil || p == nil || len(resp) != wire.RespLen {
		t.Fatalf("%d bytes, %v, %v", len(resp), p, err)
	}
	f, err := j.Resp(resp)
	if err != nil || f.Label != 101 || f.Yours != 55 {
		t.Fatalf("%+v, %v", f, err)
	}
	ka, err := h.Finish(f.Noise[:])
	if err != nil || ka.Hash != p.Keys.Hash {
		t.Fatal(err)
	}
	again, q, err := g.Respond(time.Second, home, false, b, frame, labelled(&label))
	if err != nil || q != nil || !bytes.Equal(again, resp) || label != 101 {
		t.Errorf("the same INIT: %v, %v, %d labels", q, err, label-100)
	}
	elsewhere := netip.MustParseAddrPort("198.51.100.1:4000")
	if out, _, err := g.Respond(time.Second, elsewhere, false, b, frame, labelled(&label)); out != nil || !errors.Is(err, ErrReplay) {
		t.Errorf("replay from elsewhere: %d bytes, %v", len(out), err)
	}
	if g.Pending(101) != p || g.Confirm(101) != p || g.Pending(101) != nil || g.Confirm(101) != nil {
		t.Error("confirm")
	}
	if out, _, err := g.Respond(2*time.Second, home, false, b, frame, labelled(&label)); out != nil || !errors.Is(err, ErrReplay) {
		t.Errorf("replay after the proof: %d bytes, %v", len(out), err)
	}
}

func TestGateSilence(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 20)
	_, _, frame := initFrame(t, a, b.Identity.Public(), 55)
	_, _, foreign := initFrame(t, a, identity(t, 60).Public(), 55)
	zero := bytes.Clone(frame)
	clear(zero[8:40])
	sum := g.keys.sum(zero[:wire.InitMAC1])
	copy(zero[wire.InitMAC1:], sum[:])
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"for another node", foreign, ErrMAC},
		{"flipped", append([]byte{frame[0], 0, 0, 0, 1}, frame[5:]...), ErrMAC},
		{"short", frame[:199], wire.ErrLength},
		{"zero ephemeral", zero, ErrLowOrder},
	} {
		if out, p, err := g.Respond(0, home, false, b, c.b, nil); out != nil || p != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %d bytes, %v, want %v", c.name, len(out), err, c.want)
		}
	}
	var label uint32
	if _, p, err := g.Respond(0, home, false, b, frame, labelled(&label)); err != nil || p == nil {
		t.Errorf("the true INIT after them: %v", err)
	}
	refuse := func(key.Public, wire.Payload) (wire.Payload, uint32, error) { return wire.Payload{}, 0, ErrPeer }
	_, _, other := initFrame(t, a, b.Identity.Public(), 56)
	if out, p, err := g.Respond(0, home, false, b, other, refuse); out != nil || p != nil || !errors.Is(err, ErrPeer) || g.Len() != 1 {
		t.Errorf("refused by policy: %d bytes, %v", len(out), err)
	}
}

// Attack list E 7: one INIT replayed 10^5 times, and many INITs of one peer: the table stays small, and replays
// don't cost a handshake each.
func TestReplaysStayBounded(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 20)
	_, _, frame := initFrame(t, a, b.Identity.Public(), 55)
	var label uint32
	for i := range 100_000 {
		now := time.Duration(i) * time.Millisecond / 10 // ten seconds: past the life of the pending entry
		_, _, _ = g.Respond(now, home, false, b, frame, labelled(&label))
		if g.Len() > 1 {
			t.Fatalf("%d pending", g.Len())
		}
	}
	if label != 1 {
		t.Errorf("%d handshakes computed", label)
	}
	if g.Len() != 0 || len(g.Expire(10*time.Second)) != 1 {
		t.Error("not expired")
	}
	for i := range 50 {
		_, _, frame := initFrame(t, a, b.Identity.Public(), uint32(i))
		if _, _, err := g.Respond(time.Minute+time.Duration(i)*100*time.Millisecond, home, false, b, frame, labelled(&label)); err != nil {
			t.Fatal(err)
		}
	}
	if g.Len() != MaxPendingPerPeer {
		t.Errorf("%d pending of one peer", g.Len())
	}
	if dropped := g.Expire(time.Minute + 5*time.Second); len(dropped) != 46 || g.Pending(label) == nil {
		t.Errorf("%d reported as dropped", len(dropped))
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 1)
	var label uint32
	_, _, first := initFrame(t, a, b.Identity.Public(), 1)
	if _, _, err := g.Respond(0, home, false, b, first, labelled(&label)); err != nil {
		t.Fatal(err)
	}
	h, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	j := NewJar(b.Identity.Public())
	frame := j.Init(0, 2, m1)
	cookie, p, err := g.Respond(0, home, false, b, frame, labelled(&label))
	if !errors.Is(err, ErrBusy) || p != nil || len(cookie) != wire.CookieLen {
		t.Fatalf("under load: %d bytes, %v", len(cookie), err)
	}
	for i := range cookie[4:] {
		bad := bytes.Clone(cookie)
		bad[4+i] ^= 1
		if err := j.Cookie(0, bad); err == nil {
			t.Fatalf("cookie with byte %d changed accepted", 4+i)
		}
	}
	if err := j.Cookie(0, cookie); err != nil {
		t.Fatal(err)
	}
	frame = j.Init(0, 2, m1)
	elsewhere := netip.MustParseAddrPort("192.0.2.1:4001")
	if _, _, err := g.Respond(0, elsewhere, false, b, frame, labelled(&label)); !errors.Is(err, ErrBusy) {
		t.Errorf("cookie of another port: %v", err)
	}
	resp, p, err := g.Respond(0, home, false, b, frame, labelled(&label))
	if err != nil || p == nil {
		t.Fatalf("with the cookie: %v", err)
	}
	f, err := j.Resp(resp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Finish(f.Noise[:]); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at time.Duration
		ok bool
	}{{100 * time.Second, true}, {121 * time.Second, true}, {400 * time.Second, false}} {
		j.learned = c.at // the initiator would have let it go; the responder must as well
		_, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
		if err != nil {
			t.Fatal(err)
		}
		g.load = Limiter{}
		if _, _, err := g.Respond(c.at, home, false, b, j.Init(c.at, 3, m1), labelled(&label)); (err == nil) != c.ok {
			t.Errorf("cookie at %v: %v", c.at, err)
		}
	}
}

// Ten thousand INITs from forged addresses: no state, few answers, and an honest peer still gets in.
func TestForgedFlood(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 20)
	g.load = Limiter{} // as under load throughout
	_, _, frame := initFrame(t, a, b.Identity.Public(), 1)
	in, out := 0, 0
	var label uint32
	honest := func(now time.Duration) bool {
		_, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
		if err != nil {
			t.Fatal(err)
		}
		j := NewJar(b.Identity.Public())
		cookie, _, _ := g.Respond(now, home, false, b, j.Init(now, 9, m1), labelled(&label))
		if cookie == nil || j.Cookie(now, cookie) != nil {
			return false
		}
		_, p, err := g.Respond(now, home, false, b, j.Init(now, 9, m1), labelled(&label))
		return err == nil && p != nil
	}
	got := 0
	for i := range 10_000 {
		now := time.Duration(i) * time.Second / 10_000
		binary.BigEndian.PutUint64(frame[8:], uint64(i)) // a fresh ephemeral key
		sum := g.keys.sum(frame[:wire.InitMAC1])
		copy(frame[wire.InitMAC1:], sum[:])
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7)
		reply, p, _ := g.Respond(now, from, false, b, frame, labelled(&label))
		if p != nil {
			t.Fatal("handshake without a cookie")
		}
		in, out = in+len(frame), out+len(reply)
		if i%1000 == 0 && honest(now) {
			got++
		}
	}
	if g.Len() > MaxPendingPerPeer || len(g.seen) > 10 {
		t.Errorf("%d pending, %d remembered", g.Len(), len(g.seen))
	}
	if out > in/4 {
		t.Errorf("%d bytes out for %d in", out, in)
	}
	if got < 3 {
		t.Errorf("honest peer got in %d times of 10", got)
	}
}

// Attack list E 20: for each unauthenticated input, what goes out is not longer than what came in.
func TestNoAmplification(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 1)
	_, _, frame := initFrame(t, a, b.Identity.Public(), 1)
	inputs := [][]byte{
		frame, frame, wire.Who{}.Append(nil), wire.Header{Type: wire.TypeSealed}.Append(nil),
		wire.Header{Type: wire.TypeLink}.Append(make([]byte, 0, 24)), wire.Resp{}.Append(nil), wire.Cookie{}.Append(nil),
		wire.Hint{}.Append(nil), wire.IsMe{}.Append(nil),
	}
	var label uint32
	for _, in := range inputs {
		for n := range len(in) + 1 { // and each cut short
			for now := range 3 {
				at := time.Duration(now) * time.Second
				resp, _, _ := g.Respond(at, home, false, b, in[:n], labelled(&label))
				if sum := len(resp) + len(g.Who(at, in[:n])) + len(g.Hint(at, in[:n])); sum > n {
					t.Fatalf("type %#x: %d bytes for %d", in[0], sum, n)
				}
			}
		}
	}
	who, hint := 0, 0
	for range 100 {
		if g.Who(time.Hour, inputs[2]) != nil {
			who++
		}
		if g.Hint(time.Hour, inputs[3]) != nil {
			hint++
		}
	}
	if who != replyRate || hint != replyRate {
		t.Errorf("%d ISME and %d HINT in no time", who, hint)
	}
	closed, err := NewGate(GateConfig{Identity: b.Identity})
	if err != nil {
		t.Fatal(err)
	}
	if closed.Who(0, inputs[2]) != nil {
		t.Error("a closed node tells its key")
	}
	got, err := wire.ParseIsMe(g.Who(2*time.Hour, wire.Who{Random: [8]byte{3}}.Append(nil)))
	if err != nil || got.Key != b.Identity.Public() || got.Random != [8]byte{3} {
		t.Errorf("ISME %+v, %v", got, err)
	}
}

func TestJarRefuses(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	g := newGate(t, b.Identity, 20)
	var label uint32
	_, j, frame := initFrame(t, a, b.Identity.Public(), 55)
	resp, _, err := g.Respond(0, home, false, b, frame, labelled(&label))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewJar(b.Identity.Public()).Resp(resp); !errors.Is(err, ErrLabel) {
		t.Errorf("answer to nothing: %v", err)
	}
	bad := bytes.Clone(resp)
	bad[20] ^= 1
	if _, err := j.Resp(bad); !errors.Is(err, ErrMAC) {
		t.Errorf("changed answer: %v", err)
	}
	bad = bytes.Clone(resp)
	bad[11] ^= 1
	if _, err := j.Resp(bad); !errors.Is(err, ErrLabel) {
		t.Errorf("another label: %v", err)
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	l := NewLimiter(10, 5)
	count := 0
	for ms := range 2000 {
		if l.Allow(time.Duration(ms) * time.Millisecond) {
			count++
		}
	}
	if count < 24 || count > 25 { // five at once and ten a second
		t.Errorf("%d allowed in two seconds", count)
	}
	if !l.Allow(time.Hour) {
		t.Error("refused after a pause")
	}
	var none Limiter
	if none.Allow(time.Hour) {
		t.Error("the zero Limiter allows")
	}
}

func FuzzGate(f *testing.F) {
	a, b := config(identity(f, 1)), config(identity(f, 30))
	a.Random = bytes.NewReader(make([]byte, 32)) // the same frame in each of the fuzzer's processes
	_, _, frame := initFrame(f, a, b.Identity.Public(), 1)
	f.Add(frame)
	f.Add(wire.Who{}.Append(nil))
	f.Add(wire.Header{Type: wire.TypeSealed}.Append(nil))
	g := newGate(f, b.Identity, 1000)
	j := NewJar(b.Identity.Public())
	var label uint32
	f.Fuzz(func(t *testing.T, in []byte) {
		out, p, err := g.Respond(0, home, false, b, in, labelled(&label))
		if len(out) > len(in) || err == nil && p != nil && !bytes.Equal(in[:wire.InitMAC2], frame[:wire.InitMAC2]) {
			t.Fatalf("%d bytes for %d, %v", len(out), len(in), err)
		}
		if _, err := j.Resp(in); err == nil {
			t.Fatal("answer to nothing accepted")
		}
		_ = j.Cookie(0, in)
		if len(g.Who(0, in))+len(g.Hint(0, in)) > len(in) {
			t.Fatal("amplifies")
		}
	})
}
