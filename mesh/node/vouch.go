package node

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
	"skywire/signal"
)

// An app of this box that has found out who a guest is (the gateway of a peered cluster) vouches for it: its path here
// lasts, and carries what the app says. The end of the word is the end of the path, of its streams too, at once.

const (
	maxVouched = 64
	maxVouch   = time.Hour // then it is to be said again
	// vouchFrames is what a path of a rate may carry beside it, and vouchFrame what a frame holds on average: frames are what
	// is counted where a path ends.
	vouchFrames = 4096
	vouchFrame  = 1000
)

// vouch is an app's word for a guest.
type vouch struct {
	since, until time.Duration
	rate         uint64 // bytes a second towards us; 0: no limit
}

// most is how many frames its path may have brought by now.
func (v vouch) most(now time.Duration) uint64 {
	return guestFrames + vouchFrames + uint64(float64(v.rate)*(now-v.since).Seconds())/vouchFrame
}

// Vouch lifts the limits of a guest's path to this node for so long; 0 takes the word back, and shuts the guest out.
func (n *Core) Vouch(now time.Duration, k key.Public, rate uint64, life time.Duration) error {
	n.now = now
	if !n.clustered() {
		return ErrNoCluster
	}
	old, is := n.members.vouched[k]
	if life <= 0 {
		delete(n.members.vouched, k)
		n.expelGuest(now, k, "nobody vouches for it any more")
		return nil
	}
	if !is && len(n.members.vouched) >= maxVouched {
		return ErrTooManyGuests
	}
	v := vouch{since: now, until: now + min(life, maxVouch), rate: rate}
	if is && old.rate == rate {
		v.since = old.since
	}
	if n.members.vouched == nil {
		n.members.vouched = map[key.Public]vouch{}
	}
	n.members.vouched[k] = v
	return nil
}

// expelGuest ends what a guest has here: its path, its session and the streams in it.
func (n *Core) expelGuest(now time.Duration, k key.Public, why string) {
	if n.belongs(k) {
		return
	}
	for id, g := range n.members.paths {
		if g.source == k {
			delete(n.members.paths, id)
			if r := n.relays[id]; r != nil {
				n.removeRelay(now, r, wire.ReasonPolicy, key.Public{})
			}
		}
	}
	if s := n.sessions[k]; s != nil {
		n.endSession(now, s, "guest: "+why)
	}
	n.out.PeerRestarted(k)
	if l := n.links.ByPeer(k); l != nil {
		n.neighbour(l).barred = now + guestLook // streams end before it is back
	}
	n.log.Info("guest shut out", "peer", k, "reason", why)
}

// Vouch implements api.Clusters.
func (n *Node) Vouch(ctx context.Context, k key.Public, rate uint64, life time.Duration) (err error) {
	if k.IsZero() || k == n.Key() {
		return signal.Errorf(signal.ErrUsage, "node.vouch: whose key?")
	}
	if derr := n.do(ctx, func(now time.Duration) { err = n.core.Vouch(now, k, rate, life) }); derr != nil {
		return derr
	}
	return err
}

// keepVisit seeks the node that a visitor is here for, as long as the visit lasts.
func (n *Node) keepVisit(ctx context.Context) error {
	if n.cfg.Visit.IsZero() || n.members == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(wayLife / 3)
	defer tick.Stop()
	for {
		if err := n.seek(ctx, n.cfg.Visit); err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
