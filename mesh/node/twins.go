package node

import (
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/wire"
)

// A card or backup that was copied makes two boxes with one key. A neighbour of both sees it first: a boot number is random,
// and one that comes back after another can only be of a box that never ended. It tells both, since each of them by itself
// sees a link that breaks again and again, and no more.
const (
	twinRestarts = 4                // of a neighbour within a minute are too many for one box
	twinBoots    = 4                // starts of a neighbour that are remembered
	twinTell     = time.Second      // between two words to whoever is there now …
	twinTold     = 30 * time.Second // … so long after the last return
	twinQuiet    = 10 * time.Minute // between two lines of the log
)

// start is a start of a neighbour.
type start struct {
	boot uint64
	addr netip.AddrPort // where it was last
}

// started takes the start of a neighbour whose link came up under another boot number than before.
func (n *Core) started(now time.Duration, b *neighbour) {
	boot, known := b.link.Boot(), false
	for _, s := range b.starts {
		known = known || s.boot == boot
	}
	b.starts = slices.DeleteFunc(b.starts, func(s start) bool { return s.boot == boot })
	if len(b.starts) >= twinBoots {
		b.starts = b.starts[1:]
	}
	b.starts = append(b.starts, start{boot: boot, addr: b.link.Endpoint().Addr})
	if known {
		b.twinUntil = now + twinTold
		n.tellTwin(now, b)
		if other := b.starts[len(b.starts)-2]; b.twinLog == 0 || now >= b.twinLog {
			b.twinLog = now + twinQuiet
			n.log.Warn("two boxes run one key", "peer", b.link.Peer(), "addr", b.link.Endpoint().Addr, "at", other.addr,
				"remedy", "a card or backup was copied: remove node.key on one of them")
		}
		return
	}
	if now-b.restartsAt > time.Minute {
		b.restarts, b.restartsAt = 0, now
	}
	if b.restarts++; b.restarts == twinRestarts {
		n.log.Warn("neighbour restarts again and again", "peer", b.link.Peer(), "addr", b.link.Endpoint().Addr)
	}
}

// moved notes where the start of a neighbour that is there now has its end of the link.
func (b *neighbour) moved() {
	if i := len(b.starts) - 1; i >= 0 && b.starts[i].boot == b.link.Boot() {
		b.starts[i].addr = b.link.Endpoint().Addr
	}
}

// tickTwins tells neighbours that have a twin.
func (n *Core) tickTwins(now time.Duration) {
	for _, l := range n.linkList() {
		b := n.neighbour(l)
		if !b.up || now >= b.twinUntil || now < b.twinAt || len(b.starts) < 2 {
			continue
		}
		n.tellTwin(now, b)
	}
}

// tellTwin says it to where the one that is there now seems to be: its address may still have to be proven.
func (n *Core) tellTwin(now time.Duration, b *neighbour) {
	b.twinAt = now + twinTell
	other := b.starts[len(b.starts)-2]
	n.sent(b, wire.MessageTwin, n.links.SendMoving(now, b.link, wire.Twin{Boot: other.boot, Seen: other.addr}))
}

// receiveTwin raises the alarm: a neighbour says that another box runs our key.
func (n *Core) receiveTwin(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseTwin(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if f.Boot == n.cfg.Boot {
		return // that is us: the word was meant for the other one
	}
	n.twinAlarm(now, f.Seen, "peer", b.link.Peer())
}

// twinAlarm tells people, now and then, that another box runs our key; at is where it is, if that is known.
func (n *Core) twinAlarm(now time.Duration, at netip.AddrPort, facts ...any) {
	n.twinSeen = now
	if at.IsValid() {
		n.twinAddr = at
		facts = append(facts, "addr", at)
	}
	if n.twinLog != 0 && now < n.twinLog {
		return
	}
	n.twinLog = now + twinQuiet
	n.log.Error("two boxes run this key: give one of them a key of its own (remove node.key there)", facts...)
}

// Twin tells whether another box was lately said, or seen, to run our key, and where, if that is known.
func (n *Core) Twin(now time.Duration) (at netip.AddrPort, ok bool) {
	return n.twinAddr, n.twinSeen != 0 && now-n.twinSeen < twinQuiet
}
