package member

import (
	"flag"
	"fmt"
	"testing"

	"skywire/mesh/field"
	"skywire/mesh/spectest"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md")

// vectors are the lines of SPEC.md's last section.
func vectors(t *testing.T) *spectest.Vectors {
	t.Helper()
	v := &spectest.Vectors{}
	raws := samples(t)
	for _, kind := range []Kind{KindAdmins, KindTime, KindRevocation, KindCertificate} {
		v.Line(kind.String(), raws[kind])
	}
	g := newSigner(t)
	s := g.state()
	put(t, s, raws[KindAdmins], raws[KindTime], raws[KindRevocation], raws[KindCertificate])
	digest, lists := s.Digest(), s.ListsDigest()
	v.Line("digest of the four", digest[:])
	v.Line("digest of the lists among them", lists[:])
	v.Line("page of the four", s.Page(Ref{}).Append(nil))
	joiner := identity(t, 3).Public()
	secret, binding := [16]byte{0xaa}, [32]byte{0xbb}
	proof := Proof(secret, binding, joiner)
	v.Line("proof of the secret aa00…, binding bb00…, joiner = node", proof[:])
	v.Line("request to join with it, invite 1122334455667788, name attic",
		Request{Op: OpJoin, Invite: InviteID{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, Proof: proof, Name: "attic"}.Append(nil))
	v.Line("reply: pending, retry 5 s, reason wait", Reply{Status: StatusPending, Retry: 5, Reason: "wait"}.Append(nil))
	invite := Invite{
		Cluster: g.cluster.Public(), Issuer: joiner, ID: InviteID{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, Secret: secret,
		Contacts: []Contact{{Key: joiner, Addr: "udp://192.0.2.1:4000"}, {Key: identity(t, 2).Public(), Addr: "wss://relay.example/mesh"}},
	}
	v.Text("invite of that id and secret, issuer = node, contacts udp://192.0.2.1:4000 (its own) and wss://relay.example/mesh (admin's key)", invite.Text())
	return v
}

func TestVectors(t *testing.T) {
	t.Parallel()
	vectors(t).Compare(t, *update)
}

// The numbers that SPEC.md states are those of the code.
func TestSpecStatesTheLimits(t *testing.T) {
	t.Parallel()
	spectest.Says(t,
		fmt.Sprintf("at most `%d` bytes", MaxStatement), fmt.Sprintf("at most %d)", int64(field.MaxUnix)), fmt.Sprintf("at most %d and %d bytes", MaxName, MaxTag),
		fmt.Sprintf("admins 1 (1–%d)", MaxAdmins), fmt.Sprintf("tags 1 (≤ %d)", MaxTags), fmt.Sprintf("bound: %d", MaxRevocations),
		fmt.Sprintf("refs 9 each (≤ %d)", MaxRefs), fmt.Sprintf("more than %d days above", maxJump/86400), fmt.Sprintf("at most %d days before now", confirmed/86400),
		fmt.Sprintf("Certificates last %.0f days", DefaultLife.Hours()/24), fmt.Sprintf("contacts 1 (≤ %d)", MaxContacts), fmt.Sprintf("address text ≤ %d", MaxContactAddr),
		"Five wrong proofs",
		fmt.Sprintf("Powers*: %d issue, %d revoke, %d tell the time, %d scope operate, %d scope admin", MayIssue, MayRevoke, MayTell, MayOperate, MayAdmin),
		fmt.Sprintf("Roles*: %d member, %d manager, %d relay, %d exit, %d messenger, %d border",
			RoleMember, RoleManager, RoleRelay, RoleExit, RoleMessenger, RoleBorder),
		"`"+Service+"`", "`"+invitePrefix+"`",
	)
}
