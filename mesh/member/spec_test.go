package member

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md")

// vectors are the lines of SPEC.md's last section.
func vectors(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	line := func(name string, raw []byte) {
		fmt.Fprintf(&b, "%s\n\n", name)
		for text := hex.EncodeToString(raw); text != ""; {
			n := min(len(text), 112)
			fmt.Fprintf(&b, "    %s\n", text[:n])
			text = text[n:]
		}
		b.WriteByte('\n')
	}
	raws := samples(t)
	for _, kind := range []Kind{KindAdmins, KindTime, KindRevocation, KindCertificate} {
		line(kind.String(), raws[kind])
	}
	g := newSigner(t)
	s := g.state()
	put(t, s, raws[KindAdmins], raws[KindTime], raws[KindRevocation], raws[KindCertificate])
	digest, lists := s.Digest(), s.ListsDigest()
	line("digest of the four", digest[:])
	line("digest of the lists among them", lists[:])
	line("page of the four", s.Page(Ref{}).Append(nil))
	joiner := identity(t, 3).Public()
	secret, binding := [16]byte{0xaa}, [32]byte{0xbb}
	proof := Proof(secret, binding, joiner)
	line("proof of the secret aa00…, binding bb00…, joiner = node", proof[:])
	line("request to join with it, invite 1122334455667788, name attic",
		Request{Op: OpJoin, Invite: InviteID{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, Proof: proof, Name: "attic"}.Append(nil))
	line("reply: pending, retry 5 s, reason wait", Reply{Status: StatusPending, Retry: 5, Reason: "wait"}.Append(nil))
	v := Invite{
		Cluster: g.cluster.Public(), Issuer: joiner, ID: InviteID{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, Secret: secret,
		Contacts: []Contact{{Key: joiner, Addr: "udp://192.0.2.1:4000"}, {Key: identity(t, 2).Public(), Addr: "wss://relay.example/mesh"}},
	}
	fmt.Fprintf(&b, "invite of that id and secret, issuer = node, contacts udp://192.0.2.1:4000 (its own) and wss://relay.example/mesh (admin's key)\n\n")
	for text := v.Text(); text != ""; {
		n := min(len(text), 112)
		fmt.Fprintf(&b, "    %s\n", text[:n])
		text = text[n:]
	}
	b.WriteByte('\n')
	return b.String()
}

func TestVectors(t *testing.T) {
	t.Parallel()
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(spec), "<!-- vectors -->\n")
	_, tail, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatal("SPEC.md has no place for the vectors")
	}
	want := head + "<!-- vectors -->\n" + vectors(t) + "<!-- end -->" + tail
	if *update {
		if err := os.WriteFile("SPEC.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(spec) {
		t.Error("SPEC.md has other vectors than the code; a change of them is a change of the protocol (-update writes them)")
	}
}

// The numbers that SPEC.md states are those of the code.
func TestSpecStatesTheLimits(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{
		fmt.Sprintf("at most `%d` bytes", MaxStatement), fmt.Sprintf("at most %d)", int64(maxUnix)), fmt.Sprintf("at most %d and %d bytes", MaxName, MaxTag),
		fmt.Sprintf("admins 1 (1–%d)", MaxAdmins), fmt.Sprintf("tags 1 (≤ %d)", MaxTags), fmt.Sprintf("bound: %d", MaxRevocations),
		fmt.Sprintf("refs 9 each (≤ %d)", MaxRefs), fmt.Sprintf("more than %d days above", maxJump/86400), fmt.Sprintf("at most %d days before now", confirmed/86400),
		fmt.Sprintf("Certificates last %.0f days", DefaultLife.Hours()/24), fmt.Sprintf("contacts 1 (≤ %d)", MaxContacts), fmt.Sprintf("address text ≤ %d", MaxContactAddr),
		"Five wrong proofs",
		fmt.Sprintf("Powers*: %d issue, %d revoke, %d tell the time, %d scope operate, %d scope admin", MayIssue, MayRevoke, MayTell, MayOperate, MayAdmin),
		fmt.Sprintf("Roles*: %d member, %d manager, %d relay, %d exit", RoleMember, RoleManager, RoleRelay, RoleExit),
		"`" + Service + "`", "`" + invitePrefix + "`",
	} {
		if !strings.Contains(spec, want) {
			t.Errorf("SPEC.md does not say %q", want)
		}
	}
}
