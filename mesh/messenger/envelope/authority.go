package envelope

import (
	"errors"
	"fmt"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Bounds of an Authority: a stranger's cluster may sign as much as it likes.
const (
	MaxDevices = 16 // devices that speak for one account
	MaxHeld    = 64 // statements kept of its cluster: a list, a certificate each, revocations
	maxRevoked = 32
)

// Authority knows which devices speak for one account: the account itself, or nodes that the account's cluster certified for the
// role messenger. It remembers the newest admin list and revocations it saw, so that an old card brings nobody back. One goroutine
// uses it.
type Authority struct {
	account key.Public
	state   *member.State // nil until a cluster's card came
	floor   int64
	raws    map[member.Ref][]byte
	cards   map[key.Public]*Card // the newest of each device
}

// NewAuthority makes one of what was stored: the floor that Floor said, and Statements. Stored cards are admitted next.
func NewAuthority(account key.Public, floor int64, at member.Instant, statements [][]byte) *Authority {
	a := &Authority{account: account, floor: floor, raws: map[member.Ref][]byte{}, cards: map[key.Public]*Card{}}
	if len(statements) > 0 {
		a.load(at, statements)
	}
	return a
}

func (a *Authority) load(at member.Instant, statements [][]byte) {
	a.open(at)
	for kind := member.KindAdmins; kind <= member.KindCertificate; kind++ {
		for _, raw := range statements {
			if len(raw) > 0 && member.Kind(raw[0]) == kind {
				_ = a.put(at, raw) // what does not hold any more is left out
			}
		}
	}
}

func (a *Authority) open(at member.Instant) {
	if a.state == nil {
		a.state = member.New(member.Config{Cluster: a.account, Floor: a.floor}, at)
	}
}

// put offers a statement to the state.
func (a *Authority) put(at member.Instant, raw []byte) error {
	if _, held := a.raws[member.RefOf(raw)]; !held && len(a.raws) >= MaxHeld && !a.compact(at) {
		return fmt.Errorf("statements of %s: %w", a.account.Short(), ErrFull)
	}
	ch, err := a.state.Put(at, raw)
	if err != nil {
		return err
	}
	if ch.News {
		a.raws[ch.Ref] = raw
	}
	for _, gone := range ch.Gone {
		delete(a.raws, gone)
	}
	a.floor = a.state.Floor()
	return nil
}

// compact drops the certificates of devices whose card is not held, and the oldest revocations beyond maxRevoked: the
// certificates that those took away ran out since.
func (a *Authority) compact(at member.Instant) bool {
	var keep [][]byte
	var revoked []*member.Revocation
	byEntry := map[*member.Revocation][]byte{}
	for _, raw := range a.raws {
		switch member.Kind(raw[0]) {
		case member.KindCertificate:
			if c, err := member.ParseCertificate(raw); err != nil || a.cards[c.Node] == nil {
				continue
			}
		case member.KindRevocation:
			if r, err := member.ParseRevocation(raw); err == nil {
				revoked, byEntry[r] = append(revoked, r), raw
			}
			continue
		}
		keep = append(keep, raw)
	}
	sort.Slice(revoked, func(i, j int) bool { return revoked[i].Issued > revoked[j].Issued })
	for _, r := range revoked[:min(len(revoked), maxRevoked)] {
		keep = append(keep, byEntry[r])
	}
	if len(keep) >= MaxHeld {
		return false
	}
	a.state, a.raws = nil, map[member.Ref][]byte{}
	a.load(at, keep)
	return true
}

// Admit takes a card that ParseCard gave, with the statements in it. ErrStale tells that a newer one of its device is held, and
// is no reason to distrust; a card of the same number is the same to us.
func (a *Authority) Admit(at member.Instant, c *Card) error {
	if c.Account != a.account {
		return fmt.Errorf("card for %s: %w", c.Account.Short(), ErrAuthority)
	}
	old := a.cards[c.Device]
	switch {
	case old != nil && c.Number < old.Number:
		return fmt.Errorf("card %d of %s: %w", c.Number, c.Device.Short(), ErrStale)
	case old == nil && len(a.cards) >= MaxDevices && !a.forget(at):
		return fmt.Errorf("devices of %s: %w", a.account.Short(), ErrFull)
	}
	if c.Device != a.account {
		a.open(at)
		for _, raw := range c.Statements {
			if err := a.put(at, raw); err != nil && !errors.Is(err, member.ErrStale) {
				return fmt.Errorf("card of %s: %w: %w", c.Device.Short(), ErrAuthority, err)
			}
		}
	}
	if err := a.Speaks(at, c.Device); err != nil {
		return err
	}
	a.cards[c.Device] = c
	return nil
}

// forget makes room by dropping one device that speaks no longer.
func (a *Authority) forget(at member.Instant) bool {
	for d := range a.cards {
		if a.Speaks(at, d) != nil {
			delete(a.cards, d)
			return true
		}
	}
	return false
}

// Speaks tells whether a device speaks for the account now: nil, or why not. Certificates end by the floor clock.
func (a *Authority) Speaks(at member.Instant, device key.Public) error {
	if device == a.account {
		return nil
	}
	if a.state == nil {
		return fmt.Errorf("%s for %s: %w: no certificate was shown", device.Short(), a.account.Short(), ErrAuthority)
	}
	m := a.state.Member(at, device)
	switch {
	case m.Rights != member.Member:
		return fmt.Errorf("%s for %s: %w: %s", device.Short(), a.account.Short(), ErrAuthority, m.Why)
	case m.Certificate.Roles&member.RoleMessenger == 0:
		return fmt.Errorf("%s for %s: %w: its certificate lacks the role messenger", device.Short(), a.account.Short(), ErrAuthority)
	}
	return nil
}

// Cards are the newest cards of the devices that speak for the account now.
func (a *Authority) Cards(at member.Instant) (all []*Card) {
	for d, c := range a.cards {
		if a.Speaks(at, d) == nil {
			all = append(all, c)
		}
	}
	return all
}

// Card is the newest card of a device, whether it speaks or not; nil if none is held.
func (a *Authority) Card(device key.Public) *Card { return a.cards[device] }

// Statements are those to store, in no order; Floor is to be stored with them.
func (a *Authority) Statements() (all [][]byte) {
	for _, raw := range a.raws {
		all = append(all, raw)
	}
	return all
}

// Floor is the earliest time it can be by what the cluster signed.
func (a *Authority) Floor() int64 { return a.floor }
