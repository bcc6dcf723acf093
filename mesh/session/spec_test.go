package session

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"skywire/mesh/wire"
)

var update = flag.Bool("update", false, "write the vectors into ../wire/SPEC.md")

const spec = "../wire/SPEC.md"

// The limits that this package sets stand in SPEC.md.
func TestSpecHasTheLimits(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%d s", d/time.Second) }
	for name, want := range map[string]string{
		"RekeyAfter": seconds(RekeyAfter), "RekeyJitter": seconds(RekeyJitter), "RejectAfter": seconds(RejectAfter),
		"RekeyFrames": fmt.Sprint(RekeyFrames), "RejectFrames": fmt.Sprint(uint64(RejectFrames)), "HopOverlap": seconds(HopOverlap),
		"CookieLife": seconds(CookieLife), "PendingLife": seconds(PendingLife), "MaxPending": fmt.Sprint(MaxPending),
		"MaxPendingPerPeer": fmt.Sprint(MaxPendingPerPeer), "GateThreshold": fmt.Sprint(GateThreshold),
		"EndWindow": fmt.Sprint(EndWindow), "RelayWindow": fmt.Sprint(RelayWindow), "CopyWindow": fmt.Sprint(CopyWindow),
		"ProofLen": fmt.Sprint(ProofLen), "ProofLane": fmt.Sprint(ProofLane), "LinkPath": fmt.Sprint(LinkPath),
	} {
		m := regexp.MustCompile("(?m)^\\| `" + name + "` \\| ([^|]*) \\|").FindSubmatch(b)
		if m == nil || strings.TrimSpace(string(m[1])) != want {
			t.Errorf("%s is %s, SPEC.md has %q", name, want, m)
		}
	}
}

// A whole handshake from fixed bytes, each step with a name that SPEC.md explains.
func TestVectors(t *testing.T) {
	var out strings.Builder
	line := func(name string, b []byte) { fmt.Fprintf(&out, "    %-22s %x\n", name, b) }
	a, b := config(identity(t, 1)), config(identity(t, 30))
	a.Random = bytes.NewReader(bytes.Repeat([]byte{0xe1}, 32))
	b.Random = bytes.NewReader(bytes.Repeat([]byte{0xe2}, 32))
	pa, pb := a.Identity.Public(), b.Identity.Public()
	xa, xb := pa.X25519(), pb.X25519()
	line("initiator key", pa[:])
	line("initiator X25519", xa[:])
	line("responder key", pb[:])
	line("responder X25519", xb[:])
	fmt.Fprintf(&out, "    %-22s %s\n    %-22s %s\n", "responder text", pb, "responder address", b.Network.Address(pb))
	line("prologue", a.prologue())

	h, m1, err := Initiate(a, pb, wire.Payload{Key: 7, Ports: 1, MTU: 1472, Boot: 1})
	if err != nil {
		t.Fatal(err)
	}
	j := NewJar(pb)
	frame := j.Init(0, 0x00100001, m1)
	line("INIT", frame)
	m2, kb, err := Respond(b, m1, accept(wire.Payload{Key: 9, Ports: 1, MTU: 1472, Boot: 2}))
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGate(GateConfig{Identity: b.Identity, Random: bytes.NewReader(bytes.Repeat([]byte{0xc0}, 200))})
	if err != nil {
		t.Fatal(err)
	}
	line("RESP", g.resp(&Pending{Label: 0x00200002, Theirs: 0x00100001}, m2))
	f, err := wire.ParseInit(frame)
	if err != nil {
		t.Fatal(err)
	}
	line("cookie secret", g.secret[:])
	cookie := g.cookie(0, netip.MustParseAddrPort("192.0.2.1:4000"), &f)
	line("COOKIE", cookie)
	if err := j.Cookie(0, cookie); err != nil {
		t.Fatal(err)
	}
	line("INIT with cookie", j.Init(0, 0x00100001, m1))
	ka, err := h.Finish(m2)
	if err != nil || ka.Hash != kb.Hash {
		t.Fatal(err)
	}
	line("handshake hash", ka.Hash[:])
	line("hop, to responder", ka.HopSend[:])
	line("hop, to initiator", ka.HopRecv[:])

	header := wire.Header{Type: wire.TypeLink, Key: ka.SendID, Label: 0x00200002, Counter: 1}
	n := new([12]byte)
	LinkNonce(n, header.Counter)
	body := wire.AppendMessage(nil, wire.Ping{ID: 1, Time: 2})
	size := wire.LinkOverhead + len(body)
	header.Tag = ka.HopSend.Tag(header.Append(nil), size)
	link := header.Append(nil)
	line("LINK, one Ping", ka.Send.Seal(link, n, body, link[:wire.AADLen]))
	for _, c := range []Cipher{ChaCha, AES} {
		aead, err := NewAEAD(c, [32]byte(bytes.Repeat([]byte{0x55}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		PathNonce(n, 4, 1, 5)
		sealed := wire.Inner{Kind: wire.KindPacket}.Append(nil)
		fmt.Fprintf(&out, "    k = 32 × 0x55, %s, path 4, lane 1, counter 5, AAD 1809, kind packet, data \"skywire\":\n", c)
		line("sealed", aead.Seal(nil, n, append(sealed, "skywire"...), []byte{wire.TypeSealed, 9}))
	}
	compareVectors(t, "handshake", out.String())
}

func compareVectors(t *testing.T, section, want string) {
	t.Helper()
	b, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), "<!-- "+section+": ")
	comment, rest, ok2 := strings.Cut(rest, "-->\n")
	got, tail, ok3 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("SPEC.md has no section of vectors %q", section)
	}
	want = "\n" + want + "\n"
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("the vectors in SPEC.md are not what the code makes; if the change is meant, run with -update\n%s", want)
	}
	out := head + "<!-- " + section + ": " + comment + "-->\n" + want + "<!-- end -->" + tail
	if err := os.WriteFile(spec, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
