package vpn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"skywire/tun/netcfg"
)

// membersAgain is how soon a node that is away is asked again for news of members, and membersEvery how often all is looked
// at without any: certificates run out in silence.
const (
	membersAgain = time.Second
	membersEvery = time.Minute
)

// followMembers calls look when certificates or revocations changed, and now and then, until ctx ends.
func (a *App) followMembers(ctx context.Context, look func(context.Context)) {
	var after uint64
	var looked time.Time
	for ctx.Err() == nil {
		next, changed, err := a.node.MembersChanged(ctx, after)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil || next < after: // a node that starts again counts from 1
			after = 0
			if !pause(ctx, membersAgain) {
				return
			}
			continue
		}
		if changed || after == 0 || time.Since(looked) >= membersEvery {
			looked = time.Now()
			look(ctx)
		}
		after = next
	}
}

// groupMember is the group of changes that our certificate brings.
const groupMember = "member"

// takeCertified gives the device the IPv4 address of our certificate, and sends what goes to those of other members there.
// The node knows whose they are.
func (a *App) takeCertified(ctx context.Context) {
	id, err := a.node.Whois(ctx, a.node.Self().Key.String())
	if err != nil {
		a.log.Debug("own certificate not known", "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id.IPv4 == a.status.IPv4 && slices.Equal(id.Blocks, a.blocks) {
		return
	}
	if err := a.net.Undo(groupMember); err != nil {
		a.log.Warn("former address not taken back", "err", err)
	}
	a.status.IPv4, a.blocks = id.IPv4, id.Blocks
	if !id.IPv4.IsValid() {
		return
	}
	if err := a.net.Address(groupMember, host(id.IPv4)); err != nil {
		a.log.Warn("address of the certificate not taken", "addr", id.IPv4, "err", err)
		return
	}
	for _, b := range id.Blocks {
		err := a.net.Route(groupMember, netcfg.Route{Prefix: b, Source: id.IPv4})
		if err != nil && !errors.Is(err, netcfg.ErrRouteExists) {
			a.log.Warn("members' addresses not reached", "subnet", b, "err", err)
		}
	}
	a.log.Info("address of the certificate up", "addr", id.IPv4)
}

// certified is the IPv4 address of our certificate, invalid if there is none.
func (a *App) certified() netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status.IPv4
}
