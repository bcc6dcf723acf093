package node

import (
	"context"
	"crypto/rand"
	"net/netip"
	"sort"
	"sync"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/link/lan"
	"skywire/mesh/link/udp"
	netwatch "skywire/mesh/link/watch"
	"skywire/mesh/session"
)

const (
	// lanLinks is how many neighbours of the local network are sought; more come from those that seek us. Beside them the next key
	// above ours is, so that the links of a big network make one ring at least.
	lanLinks = 8
	// lanPending bounds handshakes with who only said to be there: whoever invents keys takes no more than this from others.
	lanPending = 6
	// lanPause is the least time between two handshakes with one key because of beacons.
	lanPause = 2 * time.Second
	// lanHeard bounds the keys remembered, and lanForget is for how long.
	lanHeard  = 256
	lanForget = 3 * time.Minute
)

// newLAN makes the beacons of this node.
func (r *reacher) newLAN() (err error) {
	n := r.n
	r.lan, err = lan.New(lan.Config{
		Self: n.Key(), Network: n.network, Port: n.cfg.Find.LANPort, Say: r.say, Friends: r.friends, Found: r.found,
		Random: func(b []byte) { _, _ = rand.Read(b) }, Log: n.log,
	})
	return err
}

// lanInterfaces are those where beacons make sense.
func lanInterfaces(s netwatch.State) []lan.Interface {
	var all []lan.Interface
	for _, i := range s.Interfaces {
		if i.Multicast && !i.PointToPoint && len(i.Addrs) > 0 {
			all = append(all, lan.Interface{Index: i.Index, Name: i.Name, Addrs: i.Addrs})
		}
	}
	return all
}

// friends holds the secrets that we share with the keys of a static list; computing one takes milliseconds on a small box.
type friends struct {
	mu      sync.Mutex // guards secrets
	secrets map[key.Public][32]byte
}

func (f *friends) of(id *key.Private, keys []key.Public) []lan.Friend {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.secrets == nil || len(f.secrets) > 2*lan.MaxFriends {
		f.secrets = map[key.Public][32]byte{}
	}
	var all []lan.Friend
	for _, k := range keys {
		s, ok := f.secrets[k]
		if !ok {
			var err error
			if s, err = session.Shared(id, k, "lan"); err != nil {
				continue
			}
			f.secrets[k] = s
		}
		all = append(all, lan.Friend{Key: k, Secret: s})
	}
	return all
}

// say tells what the next beacon says.
func (r *reacher) say() (s lan.Said) {
	var missing []key.Public
	n := r.n
	_ = n.do(context.Background(), func(time.Duration) {
		s.Port, s.Network, s.Lonely = n.sockets[0].Addr().Port(), n.core.known(), !n.core.anyUp()
		if !s.Network {
			missing = n.core.missing()
		}
	})
	s.Friends = r.met.of(n.identity, missing)
	return s
}

// friends are those from whom a beacon for single nodes is taken.
func (r *reacher) friends() []lan.Friend {
	var missing []key.Public
	_ = r.n.do(context.Background(), func(time.Duration) { missing = r.n.core.missing() })
	return r.met.of(r.n.identity, missing)
}

// found hands a node of the local network to the core.
func (r *reacher) found(f lan.Found) {
	a := f.Addr.Addr()
	if a.Zone() != "" { // in the words of the sockets, or the same address looks like another one
		a = a.WithZone(udp.Zone(f.Interface.Index, f.Interface.Name))
	}
	at := netip.AddrPortFrom(a, f.Addr.Port())
	if i, ok := r.n.socketFor(at); ok {
		r.n.post(func(now time.Duration) { r.n.core.Met(now, f.Key, forward.Endpoint{Addr: at, Socket: i}) })
	}
}

// known reports whether all that may link with us know the network's id, and nobody else needs to be asked.
func (n *Core) known() bool { return n.cfg.Open || n.cfg.Network != key.Open() }

// missing are the keys of a static list without a link that is up, at most so many as one beacon is for.
func (n *Core) missing() []key.Public {
	var all []key.Public
	for k := range n.allow {
		if k != n.self && n.upLink(k) == nil {
			all = append(all, k)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
	return all[:min(len(all), lan.MaxFriends)]
}

// meeting is what is remembered of who said to be on the local network.
type meeting struct {
	heard, tried time.Duration
}

// Met is told that a node says to be at an address of the local network. Nothing of it is proven: at most a handshake begins.
func (n *Core) Met(now time.Duration, peer key.Public, at forward.Endpoint) {
	n.now = now
	if peer == n.self || n.cfg.Network == key.Open() && n.admit(peer) != nil {
		return
	}
	m, ok := n.meetings[peer]
	if !ok && !n.roomToMeet(now) {
		return
	}
	m.heard = now
	defer func() { n.meetings[peer] = m }()
	l := n.links.ByPeer(peer)
	switch {
	case m.tried != 0 && now-m.tried < lanPause:
	case l != nil && l.State() == link.Up:
		if l.Endpoint() != at {
			m.tried = now
			n.links.Probe(now, l, []forward.Endpoint{at})
		}
	case l != nil || n.seeks(now, peer):
		m.tried = now
		n.log.Debug("node on the local network", "peer", peer.Short(), "addr", at.Addr)
		if err := n.links.Burst(now, peer, []forward.Endpoint{at}); err != nil {
			n.log.Debug("node not dialled", "peer", peer.Short(), "err", err)
		}
	}
}

// roomToMeet makes room for one more.
func (n *Core) roomToMeet(now time.Duration) bool {
	if n.meetings == nil {
		n.meetings = map[key.Public]meeting{}
	}
	if len(n.meetings) < lanHeard {
		return true
	}
	for k, m := range n.meetings {
		if now-m.heard > lanForget {
			delete(n.meetings, k)
		}
	}
	return len(n.meetings) < lanHeard
}

// seeks reports whether a link with a node of the local network is worth a handshake.
func (n *Core) seeks(now time.Duration, peer key.Public) bool {
	all, pending := 0, 0
	n.links.All(func(l *link.Link) {
		all++
		if l.State() != link.Up {
			pending++
		}
	})
	if pending >= lanPending {
		return false
	}
	return all < lanLinks || all < link.MaxLinks && n.next(now) == peer
}

// next is who has the next key above ours, of those heard lately; after the highest comes the lowest.
func (n *Core) next(now time.Duration) key.Public {
	var above, least key.Public
	for k, m := range n.meetings {
		if now-m.heard > lanForget {
			continue
		}
		if least.IsZero() || k.Less(least) {
			least = k
		}
		if n.self.Less(k) && (above.IsZero() || k.Less(above)) {
			above = k
		}
	}
	if above.IsZero() {
		return least
	}
	return above
}
