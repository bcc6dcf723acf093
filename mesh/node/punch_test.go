package node_test

import (
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/link"
	"skywire/mesh/meshtest"
	"skywire/mesh/node"
	"skywire/mesh/wire"
)

// A peer that names somebody else's address, again and again, has us send there no more than a few datagrams.
func TestPunchIsNoWeapon(t *testing.T) {
	t.Parallel()
	n, a, _, b, victim := line(t)
	victim.Place(nil, netip.MustParsePrefix("198.51.100.7/32"))
	n.Connect(a, victim, meshtest.Wire{})
	a.Ping(b.Key, func(time.Duration, error) {})
	n.Run(time.Second)
	sent, size := 0, 0
	n.Tap = func(from, to *meshtest.Node, p []byte) {
		if from == a && to == victim {
			sent++
			size += len(p)
		}
	}
	var offer wire.Punch
	for range wire.MaxCandidates {
		port := uint16(1000 + len(offer.Candidates))
		offer.Candidates = append(offer.Candidates, wire.Candidate{Kind: wire.CandidateHost, Addr: netip.AddrPortFrom(victim.Addr.Addr(), port)})
	}
	offer.Step = wire.PunchOffer
	for range 600 {
		offer.ID++
		a.Core.HearPunch(n.Now(), b.Key, offer)
		a.Core.HearPunch(n.Now(), b.Key, wire.PunchGo{ID: offer.ID})
		n.Run(100 * time.Millisecond)
	}
	// One attempt is 5 times 8 handshakes; after the first ones there is one each 15 s.
	if most := 7 * 5 * wire.MaxCandidates; sent == 0 || sent > most || size != sent*wire.InitLen {
		t.Errorf("%d datagrams with %d bytes in a minute, want at most %d handshakes", sent, size, most)
	}
}

// Answers that nobody asked for, words to begin without an offer and switched-off punching do nothing.
func TestPunchOutOfTurn(t *testing.T) {
	t.Parallel()
	n, a, _, b, _ := line(t)
	a.Ping(b.Key, func(time.Duration, error) {})
	n.Run(time.Second)
	far := []wire.Candidate{{Kind: wire.CandidateHost, Addr: netip.MustParseAddrPort("198.51.100.7:7")}}
	a.Core.HearPunch(n.Now(), b.Key, wire.PunchGo{ID: 3})
	a.Core.HearPunch(n.Now(), b.Key, wire.Punch{Step: wire.PunchAnswer, ID: 99, Candidates: far})
	a.Core.HearPunch(n.Now(), b.Key, wire.PunchGo{ID: 99})
	n.Run(3 * time.Second)
	if l := a.Core.LinkTo(b.Key); l != nil {
		t.Errorf("a link came of it: %v", l.State())
	}
	off := n.Add("off", meshtest.Options{Core: node.CoreConfig{Punch: node.PunchConfig{Off: true}}})
	n.Connect(off, a, meshtest.Wire{})
	off.Dial(a)
	n.Run(time.Second)
	off.Ping(b.Key, func(time.Duration, error) {})
	n.Run(time.Second)
	off.Core.HearPunch(n.Now(), b.Key, wire.Punch{Step: wire.PunchOffer, ID: 1, Candidates: far})
	if off.Core.Punchers() != 0 {
		t.Error("a node that does not punch remembers attempts")
	}
}

// The life of a NAT's mappings is found from idle links, and links keep silent for less than that.
func TestLifeOfMappings(t *testing.T) {
	t.Parallel()
	for life, want := range map[time.Duration][2]time.Duration{ // at least, at most
		20 * time.Second:  {15 * time.Second, 16 * time.Second},
		60 * time.Second:  {36 * time.Second, 60 * time.Second},
		300 * time.Second: {40 * time.Second, 96 * time.Second}, // neighbours compare records each minute
	} {
		kind := meshtest.PortRestrictedCone
		kind.Life = life
		n := meshtest.New(4, nil)
		a, r := n.Add("a", meshtest.Options{}), n.Add("r", meshtest.Options{})
		r.Place(nil, netip.MustParsePrefix("198.51.100.1/32"))
		a.Place(n.NAT(kind, nil), netip.MustParsePrefix("192.168.1.10/24"))
		n.Connect(a, r, meshtest.Wire{Delay: 10 * time.Millisecond})
		a.Dial(r)
		n.Run(40 * time.Minute)
		if got := a.Core.KeepAlive(); got < want[0] || got > want[1] {
			t.Errorf("mappings live %v, silence is %v; want %v to %v", life, got, want[0], want[1])
		}
		if l := a.Core.LinkTo(r.Key); l == nil || l.State() != link.Up || n.Now()-l.UpSince() < 39*time.Minute {
			t.Errorf("mappings live %v: the link did not stand all the time", life)
		}
		before := a.SentDatagrams
		n.Run(10 * time.Minute)
		t.Logf("mappings live %v: silence %v, %d datagrams sent in 10 minutes", life, a.Core.KeepAlive(), a.SentDatagrams-before)
	}
}
