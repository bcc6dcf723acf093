package envelope

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"skywire/mesh/spectest"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md, and the envelopes that testdata lacks")

// sealedVector is an envelope of the sample bundle that was sealed once: sealing draws a key, so it can't be made again.
func sealedVector(t *testing.T, suite Suite) []byte {
	t.Helper()
	name := "testdata/envelope-" + suite.String() + ".hex"
	if _, err := os.Stat(name); *update && err != nil {
		from, to := identity(t, 1), identity(t, 2)
		raw, err := Seal(sampleBundle(from, to), from, prekey(t, secret(7), suite), SealOptions{Expires: epoch + 3600})
		if err := os.WriteFile(name, []byte(hex.EncodeToString(must(t, raw, err))+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	return must(t, raw, err)
}

// vectors are the lines of SPEC.md's last section.
func vectors(t *testing.T) *spectest.Vectors {
	t.Helper()
	v := &spectest.Vectors{}
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	sample := sampleBundle(from, to)
	v.Line("bundle (device = account: seed 01 00…), before signature and zeros", sample.append(nil))
	p := prekey(t, s, SuiteX25519)
	sig := from.Sign("bundle", [8]byte{}, signedBundle(to.Public(), p, sample.append(nil)))
	v.Line("its signature for the device of seed 02 00… and prekey 7, X25519", sig[:])
	id := sample.Items[1].ID(from.Public())
	v.Line("id of its item 41", id[:])
	v.Line("prekey 7: seed", s.seed[:])
	v.Line("prekey 7: X25519 public key", p.Public)
	h := prekey(t, s, SuiteHybrid).Public
	v.Line("prekey 7: MLKEM768-X25519 public key, last 64 bytes", h[len(h)-64:])
	raw := sealedVector(t, SuiteX25519)
	v.Line("an envelope of this bundle for prekey 7, X25519, expires 1795395600, no stamp", raw)
	o, err := ParseOuter(raw)
	if err != nil {
		t.Fatal(err)
	}
	v.Line("its id", o.ID[:])
	if err := Stamp(t.Context(), raw, 12); err != nil {
		t.Fatal(err)
	}
	v.Line("the first stamp of 12 bits for it", raw[len(raw)-stampLen:])
	v.Text("safety number of the two accounts", SafetyNumber(from.Public(), to.Public()))
	k := KeyChange{Old: from.Public(), New: to.Public(), Issued: epoch}
	raw, err = k.Sign(from, to)
	v.Line("change of key from the one to the other", must(t, raw, err))
	c := Custody{Mailbox: from.Public(), To: to.Public(), Issued: epoch, Until: epoch + 86400, IDs: []EnvelopeID{o.ID}}
	raw, err = c.Sign(from)
	v.Line("custody of the first for the envelope", must(t, raw, err))
	g := newCluster(t, 30)
	d := identity(t, 10)
	card := g.goodCard(d, 5)
	card.Prekeys = card.Prekeys[:1]
	raw, err = card.Sign(d)
	v.Line("card of device seed 0a 00… of the cluster of seed 1e (30) 00…, its admin seed 1f 00…", must(t, raw, err))
	l := Link{Account: g.root.Public(), Place: card.Place, Token: Token{0xaa}}
	v.Text("contact link of that account and place, token aa00…", l.Text())
	return v
}

func TestVectors(t *testing.T) {
	t.Parallel()
	vectors(t).Compare(t, *update)
	from, to := identity(t, 1), identity(t, 2)
	for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
		b, err := Open(sealedVector(t, suite), to.Public(), only(secret(7)))
		if err != nil {
			t.Fatalf("the stored envelope of suite %s: %v", suite, err)
		}
		if !bytes.Equal(b.append(nil), sampleBundle(from, to).append(nil)) {
			t.Errorf("suite %s: another bundle comes out", suite)
		}
	}
}

// The numbers that SPEC.md states are those of the code.
func TestSpecStatesTheLimits(t *testing.T) {
	t.Parallel()
	days := func(d time.Duration) string { return fmt.Sprintf("%.0f days", d.Hours()/24) }
	spectest.Says(t,
		fmt.Sprintf("at most %d bytes", MaxCard), fmt.Sprintf("name 1 (≤ %d)", MaxName), fmt.Sprintf("mailboxes 1 (≤ %d)", MaxMailboxes),
		fmt.Sprintf("prekeys 1 (≤ %d)", MaxPrekeys), fmt.Sprintf("statements 1 (≤ %d)", MaxStatements), fmt.Sprintf("at most %d bits", MaxStamp),
		fmt.Sprintf("%d: a token", StrangersClosed), fmt.Sprintf("%d bytes a body", MaxBody), fmt.Sprintf("%d items", MaxItems), fmt.Sprintf("%d bytes with signature and zeros", MaxBundle),
		days(PrekeyLife), fmt.Sprintf("steps of %d bytes", padStep), fmt.Sprintf("more than %d bytes", HybridOver), fmt.Sprintf("%d times", safetyRounds),
		fmt.Sprintf("ids 1 (≤ %d)", MaxCustody), "`"+linkPrefix+"`", "`"+info+"`", fmt.Sprintf("%d devices and %d statements", MaxDevices, MaxHeld),
	)
	for k, name := range map[Kind]string{
		KindText: "text", KindFile: "file", KindChunk: "chunk", KindFileWord: "file word", KindReceipt: "receipt", KindCard: "card", KindContact: "contact",
		KindKeyChange: "key change", KindGroup: "group", KindControl: "control", KindResult: "result", KindPeering: "peering", KindStatement: "statement",
		KindCopy: "copy", KindHistory: "history",
	} {
		spectest.Says(t, fmt.Sprintf("%d %s", k, name))
	}
}
