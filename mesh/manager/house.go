//go:build issuer || !(mips || mipsle)

package manager

import (
	"context"
	"time"

	"skywire/mesh/member"
	"skywire/mesh/store"
)

// keepHouse does what nobody asks for.
func (i *Issuer) keepHouse(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			step, cancel := context.WithTimeout(ctx, callTimeout)
			i.Tidy(step)
			cancel()
		}
	}
}

// Tidy adds up the time of invites, forgets joiners that no longer ask, renews the certificate of this box's own node and
// signs the time, as far as each is due. Without a key or a cluster it does nothing.
func (i *Issuer) Tidy(ctx context.Context) {
	i.turn.Lock()
	defer i.turn.Unlock()
	if err := i.ready(ctx, learnLate); err != nil {
		i.c.Log.Debug("nothing to issue", "err", err)
		return
	}
	at := i.at()
	i.count(at)
	for k, p := range i.pending {
		if at.Up-p.asked >= pendingLife {
			delete(i.pending, k)
		}
	}
	var raws [][]byte
	self := i.c.Members.Self().Key
	if i.state.RenewDue(at, self) {
		raw, err := i.again(at, i.state.Member(at, self))
		if err != nil {
			i.c.Log.Warn("own certificate not renewed", "err", err)
		} else {
			raws = append(raws, raw)
		}
	}
	list, _ := i.state.Admins()
	if me, _ := list.Find(i.admin.Public()); me.Powers&member.MayTell != 0 && i.state.Stamp(at)-i.state.Signed() >= int64(tellEvery/time.Second) {
		t := member.TimeStatement{Issued: i.state.Stamp(at)}
		if raw, err := t.Sign(i.state.Network(), i.admin); err == nil {
			raws = append(raws, raw)
		}
	}
	if len(raws) > 0 {
		if err := i.commit(ctx, at, raws); err != nil {
			i.c.Log.Warn("statements not stored", "err", err)
		}
	}
}

// count adds the time since it was last called to all invites, and stores it once a minute while one is open. So an
// invite lives by the time that this issuer ran; a date ends it only where the floor clock is sure of it.
func (i *Issuer) count(at member.Instant) {
	gone := at.Up - i.counted
	if gone < time.Second {
		return
	}
	i.counted = at.Up
	var changed []*member.Offer
	for _, o := range i.offers {
		if o.State() != "open" {
			continue
		}
		before := o.Elapsed
		o.Elapsed += gone
		if i.state.Over(at, o.Until) {
			o.Elapsed = max(o.Elapsed, o.Life)
		}
		if o.Elapsed >= o.Life || o.Elapsed/countEvery != before/countEvery {
			changed = append(changed, o)
		}
	}
	if len(changed) == 0 {
		return
	}
	err := i.c.Store.Batch(func(tx *store.Tx) error {
		for _, o := range changed {
			tx.PutOffer(o.ID, o.Append(nil))
		}
		return nil
	})
	if err != nil {
		i.c.Log.Warn("time of invites not stored", "err", err)
	}
}
