package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"skywire/mesh/key"
)

// sample is one value of each layout: the seed of its fuzz target, and its vector in SPEC.md.
type sample struct {
	name  string
	bytes []byte
	// parse gives the value and, made from it, the bytes again.
	parse func(b []byte) (value any, again []byte, err error)
}

type appender interface{ Append(dst []byte) []byte }

func of[T appender](name string, v T, parse func([]byte) (T, error)) sample {
	return sample{name, v.Append(nil), func(b []byte) (any, []byte, error) {
		v, err := parse(b)
		if err != nil {
			return v, nil, err
		}
		return v, v.Append(nil), nil
	}}
}

func identity(t testing.TB, first byte) *key.Private {
	t.Helper()
	for {
		if k, err := key.FromSeed([32]byte(bytes.Repeat([]byte{first}, 32))); err == nil {
			return k
		}
		first++
	}
}

func fill(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func setup(t testing.TB) Setup {
	t.Helper()
	m := Setup{
		Core: SetupCore{
			Flags: SetupStream | SetupProof, Forward: 2, Backward: 3, Path: 4, Number: 1 << 40, Idle: 60, PriceCap: 9,
			Hops: []key.Public{identity(t, 1).Public(), identity(t, 30).Public(), identity(t, 60).Public()},
		},
		Index: 1, MTU: 1472, BackBase: Label(3, 17), Price: 5, End: fill(49, 0),
	}
	m.Sign(identity(t, 1), key.Open())
	return m
}

func samples(t testing.TB) []sample {
	t.Helper()
	k, network, id := identity(t, 1).Public(), key.Open(), PathID(fill(16, 0x80))
	payload := Payload{
		MinVersion: 1, MaxVersion: 1, Ciphers: CipherChaCha | CipherAES, Key: 5, Ports: 2, MTU: 1472, Network: network,
		Members: [8]byte(fill(8, 1)), Boot: 77, PSK: [8]byte(fill(8, 9)), Time: 1_790_000_000, Features: FeatureCopies,
	}
	random, noise1, noise2, mac := [8]byte(fill(8, 0x70)), [Noise1Len]byte(fill(160, 0)), [Noise2Len]byte(fill(112, 0)), [16]byte(fill(16, 0xa0))
	rules := []Rule{{Label(1, 2), id}, {Label(1, 9), PathID(fill(16, 0))}}
	header := Header{Type: TypeSealed, Key: 5, TTL: MaxTTL, Bits: 1, Label: Label(0xabc, 0x12345), Counter: 1 << 33, Tag: 0x1122334455667788}
	return []sample{
		of("Header", header, ParseHeader),
		of("Inner", Inner{Kind: KindFragment, Fragment: 3, Index: 1, Last: true}, func(b []byte) (Inner, error) {
			i, rest, err := ParseInner(b)
			if err == nil && len(rest) > 0 {
				err = ErrLength // the data behind it is not its business
			}
			return i, err
		}),
		of("Payload", payload, ParsePayload),
		of("Init", Init{7, noise1, mac, [16]byte{1}}, ParseInit),
		of("Resp", Resp{7, 8, noise2, mac, [16]byte{}}, ParseResp),
		of("Cookie", Cookie{7, [24]byte(fill(24, 1)), [32]byte(fill(32, 2))}, ParseCookie),
		of("Who", Who{random}, ParseWho),
		of("IsMe", IsMe{random, k, network}, ParseIsMe),
		of("Hint", Hint{[16]byte(header.Append(nil))}, ParseHint),
		of("Keep", Keep{}, ParseKeep),
		of("Ping", Ping{1, 2}, ParsePing),
		of("Pong", Pong{1, 2, netip.MustParseAddrPort("192.0.2.7:4001")}, ParsePong),
		of("Rekey1", Rekey1{noise1}, ParseRekey1),
		of("Rekey2", Rekey2{noise2}, ParseRekey2),
		of("Challenge", Challenge{random}, ParseChallenge),
		of("Response", Response{random}, ParseResponse),
		of("Port", Port{3, random}, ParsePort),
		of("PortOpen", PortOpen{7, random}, ParsePortOpen),
		of("Try", Try{random}, ParseTry),
		of("Tried", Tried{random, netip.MustParseAddrPort("192.0.2.7:4001")}, ParseTried),
		of("Twin", Twin{7, netip.MustParseAddrPort("192.0.2.7:4001")}, ParseTwin),
		of("Measure", Measure{1000, 2500}, ParseMeasure),
		of("Members", Members{MembersAnswer, [8]byte(fill(8, 1)), [8]byte(fill(8, 2))}, ParseMembers),
		of("MembersList", MembersList{MembersAll, StatementID{}, StatementID(fill(9, 9)), []StatementID{StatementID(fill(9, 3))}}, ParseMembersList),
		of("Statement", Statement{fill(20, 1)}, ParseStatement),
		of("WayAsk", WayAsk{6, k}, ParseWayAsk),
		of("Way", Way{6, []key.Public{k, identity(t, 30).Public()}}, ParseWay),
		of("SetupCore", setup(t).Core, ParseSetupCore),
		of("Setup", setup(t), ParseSetup),
		of("Accept", Accept{id, Label(3, 4), 1400, 12, fill(49, 5)}, ParseAccept),
		of("Refuse", Refuse{id, 2, ReasonReplay, 1 << 41}, ParseRefuse),
		of("Remove", Remove{6, id, ReasonClosed}, ParseRemove),
		of("Event", Event{6, Label(3, 4), EventPrice, 1000, 60}, ParseEvent),
		of("Rules", Rules{6, 2, RulesDigest(rules)}, ParseRules),
		of("RulesList", RulesList{6, 0, 1, rules}, ParseRulesList),
		of("Record", Record{fill(20, 1)}, ParseRecord),
		of("RecordAck", RecordAck{k, 5}, ParseRecordAck),
		of("RecordsDigest", RecordsDigest{6, 1, 2, []RecordID{{k, 5}, {identity(t, 30).Public(), 6}}}, ParseRecordsDigest),
		of("RecordsSum", RecordsSum{7 << 50, 1000}, ParseRecordsSum),
		of("Piece", Piece{9, 1, 2, fill(10, 0)}, ParsePiece),
		of("Ack", Ack{6}, ParseAck),
		of("Bye", Bye{ByeShutdown}, ParseBye),
		of("ControlKeep", ControlKeep{}, ParseControlKeep),
		of("Report", Report{4, 900, []LaneReport{{100, 99}, {7, 8}}}, ParseReport),
		of("Use", Use{4, 1}, ParseUse),
		of("Probe", ProbeFor(3, 60), ParseProbe),
		of("ProbeAck", ProbeAck{3, 60}, ParseProbeAck),
		of("ControlRekey1", ControlRekey1{noise1}, ParseControlRekey1),
		of("ControlRekey2", ControlRekey2{noise2}, ParseControlRekey2),
		of("Proof", Proof{true, id}, ParseProof),
		of("Echo", Echo{1, 2, []byte("skywire")}, ParseEcho),
		of("EchoReply", EchoReply{1, 2, []byte("skywire")}, ParseEchoReply),
		of("Later", Later{40, 25, random}, ParseLater),
		of("LaterAnswer", LaterAnswer{40, random}, ParseLaterAnswer),
		of("Punch", Punch{PunchOffer, NATSymmetric, PunchCGNAT, 6, []Candidate{
			{CandidateHost, netip.MustParseAddrPort("[2001:db8::7]:7667")}, {CandidateObserved, netip.MustParseAddrPort("192.0.2.7:4001")},
		}}, ParsePunch),
		of("PunchGo", PunchGo{6}, ParsePunchGo),
		of("ControlError", ControlError{ErrorPath, "gone"}, ParseControlError),
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range samples(t) {
		_, again, err := s.parse(s.bytes)
		if err != nil || !bytes.Equal(again, s.bytes) {
			t.Errorf("%s: %v, again %x, want %x", s.name, err, again, s.bytes)
			continue
		}
		kept := slices.Clone(again)
		in := slices.Clone(s.bytes)
		v, _, _ := s.parse(in)
		clear(in)
		if got := v.(appender).Append(nil); !bytes.Equal(got, kept) {
			t.Errorf("%s keeps its argument", s.name)
		}
		if got := v.(appender).Append([]byte("x")); !bytes.Equal(got[1:], kept) || got[0] != 'x' {
			t.Errorf("%s does not append", s.name)
		}
	}
}

// Lengths that SPEC.md promises.
func TestSizes(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"Header": 24, "Inner": 4, "Payload": 64, "Init": 200, "Resp": 156, "Cookie": 64, "Who": 200, "IsMe": 56, "Hint": 24,
		"SetupCore": 72 + 32*3, "Setup": 136 + 32*3 + 18 + 49, "Ping": 12, "Pong": 30, "Event": 24, "Refuse": 28, "Probe": 60 - SealedOverhead,
	}
	for _, s := range samples(t) {
		if n, ok := want[s.name]; ok && n != len(s.bytes) {
			t.Errorf("%s has %d bytes, want %d", s.name, len(s.bytes), n)
		}
	}
	if SealedOverhead != 44 {
		t.Errorf("overhead %d", SealedOverhead)
	}
	page := AppendMessage(nil, RulesList{Pages: 1, Rules: make([]Rule, MaxRules)})
	digest := AppendMessage(nil, RecordsDigest{Pages: 1, Records: make([]RecordID, MaxDigests)})
	members := AppendMessage(nil, MembersList{IDs: make([]StatementID, MaxStatements)})
	if n := max(len(page), len(digest), len(members)) + LinkOverhead; n > 548 {
		t.Errorf("a page makes a datagram of %d bytes", n)
	}
	long := Setup{Core: SetupCore{Hops: make([]key.Public, MaxHops)}, End: make([]byte, MaxEnd)}
	for name, m := range map[string]Message{"setup": long, "record": Record{make([]byte, MaxRecord)}, "statement": Statement{make([]byte, MaxStatement)}} {
		if _, err := Cut(AppendMessage(nil, m), 1, 548-LinkOverhead); err != nil {
			t.Errorf("the largest %s does not fit in pieces: %v", name, err)
		}
	}
}

func TestCutShortAndTooLong(t *testing.T) {
	t.Parallel()
	open := []string{"Header", "Inner", "Piece", "Record", "Probe", "Echo", "EchoReply", "ControlError", "Statement"} // the tail is data
	pages := map[string]int{"RulesList": 20, "RecordsDigest": 40, "MembersList": 9, "Way": 32}
	for _, s := range samples(t) {
		for n := range s.bytes {
			_, again, err := s.parse(s.bytes[:n])
			if err == nil && !bytes.Equal(again, s.bytes[:n]) || err == nil && !slices.Contains(open, s.name) && pages[s.name] == 0 {
				t.Errorf("%s: %d of %d bytes accepted", s.name, n, len(s.bytes))
			}
		}
		if _, _, err := s.parse(append(slices.Clone(s.bytes), 1)); err == nil && !slices.Contains(open, s.name) {
			t.Errorf("%s: one byte too many accepted", s.name)
		}
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	b := AppendMessage(nil, Keep{})
	b = AppendMessage(b, Ping{1, 2})
	b = append(b, 0, 2, 0xee, 1, 1) // of a later version
	b = AppendMessage(b, Bye{ByeClosed})
	var types []uint8
	for len(b) > 0 {
		typ, body, rest, err := NextMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(rest) != len(b)-len(body)-MessageHead {
			t.Fatal("lengths")
		}
		types, b = append(types, typ), rest
	}
	if !slices.Equal(types, []uint8{MessageKeep, MessagePing, 0xee, MessageBye}) {
		t.Errorf("types %v", types)
	}
	for _, bad := range [][]byte{nil, {0}, {0, 0}, {0, 1, 2}, {0xff, 0xff, 2, 1}} {
		if _, _, _, err := NextMessage(bad); !errors.Is(err, ErrLength) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	whole := AppendMessage(nil, Record{fill(MaxRecord, 0)})
	for _, room := range []int{300, 508, 1388, 1428} {
		pieces, err := Cut(whole, 7, room)
		if err != nil {
			t.Fatal(err)
		}
		var joined []byte
		for i, p := range pieces {
			m := AppendMessage(nil, p)
			if len(m) > room || p.ID != 7 || int(p.Index) != i || int(p.Count) != len(pieces) {
				t.Fatalf("room %d: piece %d of %d bytes: %+v", room, i, len(m), p)
			}
			joined = append(joined, p.Bytes...)
		}
		if !bytes.Equal(joined, whole) {
			t.Errorf("room %d: joined differently", room)
		}
	}
	for _, room := range []int{0, 7, 100} {
		if _, err := Cut(whole, 7, room); !errors.Is(err, ErrTooLarge) {
			t.Errorf("room %d: %v", room, err)
		}
	}
}

func TestSetupSignature(t *testing.T) {
	t.Parallel()
	m := setup(t)
	if !m.Verify(key.Open()) {
		t.Fatal("own signature refused")
	}
	if m.Verify(key.Cluster(m.Core.Source())) {
		t.Error("verifies in another network")
	}
	other := m
	other.End = fill(49, 1)
	if other.Verify(key.Open()) {
		t.Error("verifies with another end part")
	}
	other = m
	other.Index, other.MTU, other.BackBase, other.Price = 2, 576, 1, 1000 // what hops rewrite
	if !other.Verify(key.Open()) {
		t.Error("a hop's fields are under the signature")
	}
	core := m.Core
	core.EndHash = [32]byte{}
	if core.Bind() != m.Core.Bind() || core.ID() == m.Core.ID() {
		t.Error("Bind must leave the end hash out, ID must not")
	}
	for i := range m.Core.Append(nil) {
		b := m.Core.Append(nil)
		b[i] ^= 1
		core, err := ParseSetupCore(b)
		if err != nil {
			continue
		}
		changed := m
		changed.Core = core
		if changed.Verify(key.Open()) {
			t.Errorf("verifies with byte %d changed", i)
		}
	}
}

func TestSetupRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Setup){
		"one hop":              func(m *Setup) { m.Core.Hops = m.Core.Hops[:1] },
		"17 hops":              func(m *Setup) { m.Core.Hops = make([]key.Public, 17) },
		"a key twice":          func(m *Setup) { m.Core.Hops[2] = m.Core.Hops[0] },
		"a zero key":           func(m *Setup) { m.Core.Hops[1] = key.Public{} },
		"no lanes":             func(m *Setup) { m.Core.Forward = 0 },
		"nine lanes":           func(m *Setup) { m.Core.Backward = 9 },
		"idle too long":        func(m *Setup) { m.Core.Idle = MaxIdle + 1 },
		"index of the source":  func(m *Setup) { m.Index = 0 },
		"index behind the end": func(m *Setup) { m.Index = 3 },
	} {
		m := setup(t)
		change(&m)
		if _, err := ParseSetup(m.Append(nil)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		generation uint16
		slot       uint32
		want       uint32
	}{{0, 0, 0}, {1, 0, 1 << 20}, {0xfff, MaxSlot, 1<<32 - 1}, {0xabc, 0x12345, 0xabc12345}} {
		got := Label(c.generation, c.slot)
		g, s := SplitLabel(got)
		if got != c.want || g != c.generation || s != c.slot {
			t.Errorf("label %#x of %#x and %#x gives %#x and %#x", got, c.generation, c.slot, g, s)
		}
	}
}

func TestRulesDigest(t *testing.T) {
	t.Parallel()
	a, b := Rule{1, PathID{1}}, Rule{2, PathID{0}}
	if RulesDigest([]Rule{a, b}) != RulesDigest([]Rule{b, a}) {
		t.Error("depends on the order")
	}
	if RulesDigest([]Rule{a}) == RulesDigest([]Rule{b}) || RulesDigest(nil) == RulesDigest([]Rule{a}) {
		t.Error("does not depend on the rules")
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"192.0.2.1:80", "[2001:db8::1]:443", "[::ffff:192.0.2.1]:5"} {
		a := netip.MustParseAddrPort(s)
		got, err := ParsePong(Pong{Observed: a}.Append(nil))
		want := netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if err != nil || got.Observed != want {
			t.Errorf("%s: %v, %v", s, got.Observed, err)
		}
	}
	for _, a := range []netip.AddrPort{{}, netip.MustParseAddrPort("[::]:9")} {
		got, err := ParsePong(Pong{Observed: a}.Append(nil))
		if err != nil || got.Observed.IsValid() {
			t.Errorf("%v: %v, %v", a, got.Observed, err)
		}
	}
}

func TestHeaderDoesNotAllocate(t *testing.T) {
	b := make([]byte, 0, 64)
	h := Header{Type: TypeSealed, Label: 5}
	junk := make([]byte, 30)
	if n := testing.AllocsPerRun(100, func() {
		b = h.Append(b[:0])
		_, _ = ParseHeader(b)
		_, _ = ParseHeader(junk)
		_, _, _ = ParseInner(junk)
		_, _, _ = ParseInner(junk[:3])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseIsMeChecksTheKey(t *testing.T) {
	t.Parallel()
	f := IsMe{Key: identity(t, 1).Public()}
	f.Key[31] |= 0x80
	if _, err := ParseIsMe(f.Append(nil)); !errors.Is(err, key.ErrInvalid) {
		t.Errorf("sign bit 1: %v", err)
	}
}
