package meshtest

import (
	"encoding/binary"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// packetTo is an IPv6 packet of size bytes from one node's mesh address to another's.
func packetTo(from, to *Node, size int) []byte {
	b := make([]byte, size)
	b[0], b[6], b[7] = 0x60, 59, 64 // no next header
	binary.BigEndian.PutUint16(b[4:], uint16(size-40))
	src, dst := from.Core.Address().As16(), to.Core.Address().As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return b
}

// TestGuestCarriesLittle: packets of a guest are delivered nowhere, and a path of a guest that carries more than a certificate
// needs is ended by the members on it, and the guest may not come back at once.
func TestGuestCarriesLittle(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 11)
	n := c.chain("issuer", "middle", "edge")
	guest := c.add("guest")
	c.net.Connect(n[2], guest, Wire{Delay: 5 * time.Millisecond})
	guest.Dial(n[2])
	c.mustReach(n[0], n[2])
	guest.Core.Seek(guest.clock(), n[0].Key)
	c.mustReach(guest, n[0])
	delivered := 0
	n[0].Stack = func(*Node, []byte) { delivered++ }
	for range 400 {
		guest.Send(packetTo(guest, n[0], 1000))
		c.net.Run(time.Millisecond)
	}
	c.net.Run(time.Second)
	if delivered > 0 {
		t.Errorf("%d packets of a guest were delivered", delivered)
	}
	if n[0].Core.HasSession(guest.Key) {
		t.Error("the issuer still has a session with a guest that sent 400 kB")
	}
	guest.Core.Seek(guest.clock(), n[0].Key)
	if err := c.reach(guest, n[0], 10*time.Second); err == nil {
		t.Error("it has a path again after ten seconds")
	}
	c.mustReach(n[0], n[2])
}

// TestForgedStatements: what nobody signed who may is not taken, not passed on, and does not keep members apart.
func TestForgedStatements(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 12)
	n := c.chain("a", "b", "c")
	c.mustReach(n[0], n[2])
	stranger, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	list, err := (&member.AdminList{Number: 9, Issued: c.now(), Admins: []member.Admin{{Key: stranger.Public(), Powers: member.MayIssue}}}).Sign(stranger)
	if err != nil {
		t.Fatal(err)
	}
	revoke, err := (&member.Revocation{Admin: stranger.Public(), Node: n[2].Key, Revoked: true, N: 1, Issued: c.now()}).Sign(c.network, stranger)
	if err != nil {
		t.Fatal(err)
	}
	bent := c.revocation(n[2], true)
	bent[len(bent)-1] ^= 1
	for _, raw := range [][]byte{list, revoke, bent, {}, {byte(member.KindRevocation)}, make([]byte, 4000)} {
		if news, err := n[0].Core.Put(n[0].clock(), raw); news || err == nil {
			t.Errorf("statement of %d bytes: news %v, %v", len(raw), news, err)
		}
		n[0].wake(c.net.now)
	}
	c.net.Run(5 * time.Second)
	c.mustReach(n[0], n[2])
}

// TestRevokeAndRenewCross: two halves of a mesh that lost sight of each other hear of a revocation and of a renewal of the same
// node. When they meet again it is revoked, in both.
func TestRevokeAndRenewCross(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 13)
	n := c.chain("a", "b", "c", "d")
	c.mustReach(n[0], n[3])
	middle := c.net.wires[[2]*Node{n[1], n[2]}]
	middle.Down = true
	c.net.Run(20 * time.Second)
	c.put(n[0], c.revocation(n[3], true))
	c.put(n[3], c.certificate(n[3], 0, 90*24*time.Hour))
	c.net.Run(2 * time.Second)
	if !n[2].Core.Linked(n[3].Key) {
		t.Error("the half that could not know cut it off")
	}
	middle.Down = false
	if !c.net.RunUntil(30*time.Second, func() bool { return !n[2].Core.Linked(n[3].Key) }) {
		t.Error("revoked by one half, it is still linked in the other")
	}
	c.mustReach(n[0], n[2])
	for _, nd := range n[:3] {
		if !nd.Core.Members().Revoked(n[3].Key) {
			t.Errorf("%s does not know", nd.Name)
		}
	}
	sums := map[[8]byte]bool{}
	for _, nd := range n[:3] {
		sums[nd.Core.Members().Digest()] = true
	}
	if len(sums) != 1 {
		t.Errorf("%d different sets of statements", len(sums))
	}
}
