package node_test

import (
	"net/netip"
	"testing"
	"time"

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
