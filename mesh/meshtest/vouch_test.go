package meshtest

import (
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// TestVouchedGuest: at the border node an app's word for a guest makes its path last, and its end ends the session at once.
func TestVouchedGuest(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 7)
	n := c.chain("issuer", "border", "other")
	c.put(n[1], c.certificate(n[1], member.RoleBorder, 90*24*time.Hour))
	c.net.Run(time.Second)
	guest, second := c.add("guest"), c.add("second")
	for _, g := range []*Node{guest, second} {
		c.net.Connect(n[1], g, Wire{Delay: 5 * time.Millisecond})
		g.Dial(n[1])
	}
	var again func()
	again = func() {
		guest.Core.Seek(guest.clock(), n[1].Key)
		second.Core.Seek(second.clock(), n[1].Key)
		c.net.After(10*time.Second, again)
	}
	again()
	c.mustReach(guest, n[1])
	c.mustReach(second, n[1])
	if err := c.reach(guest, n[2], 3*time.Second); err == nil {
		t.Error("the guest reached a member that receives nobody")
	}
	if err := n[1].Core.Vouch(n[1].clock(), guest.Key, 0, 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	ended := map[*Node]bool{}
	for range 3 * 60 {
		c.net.Run(time.Second)
		guest.Core.Want(guest.clock(), n[1].Key, nil)
		for _, g := range []*Node{guest, second} {
			ended[g] = ended[g] || !n[1].Core.HasSession(g.Key)
		}
	}
	if ended[guest] {
		t.Error("the path of a guest that somebody vouches for ended")
	}
	if !ended[second] {
		t.Error("the path of another guest did not")
	}
	began := c.net.Now()
	if err := n[1].Core.Vouch(n[1].clock(), guest.Key, 0, 0); err != nil {
		t.Fatal(err)
	}
	if n[1].Core.HasSession(guest.Key) {
		t.Errorf("%v after the word was taken back there is a session", c.net.Now()-began)
	}
	for range 64 {
		if err := n[1].Core.Vouch(n[1].clock(), other(t), 0, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if n[1].Core.Vouch(n[1].clock(), other(t), 0, time.Minute) == nil {
		t.Error("there is no bound to the guests vouched for")
	}
}

func other(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}
