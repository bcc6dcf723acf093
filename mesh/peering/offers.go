package peering

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"
	"sort"

	"skywire/mesh/key"
)

// The invites of a book: made here, redeemed here, by one cluster each.

// Offer keeps an invite, before anybody hears of it. confirm: a person here looks again when it is taken.
func (b *Book) Offer(text string, confirm bool, now int64) error {
	v, err := ParseInvite(text)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, m := range b.invites {
		if m.Done || now >= m.invite.Expires {
			delete(b.invites, id)
		}
	}
	if len(b.invites) >= maxInvites {
		return ErrFull
	}
	b.invites[v.ID] = &made{Text: text, Confirm: confirm, invite: v}
	return b.saveLocked()
}

// Withdraw forgets an invite; false if there was none.
func (b *Book) Withdraw(id InviteID) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.invites[id] == nil {
		return false, nil
	}
	delete(b.invites, id)
	return true, b.saveLocked()
}

// Offered is an invite for people.
type Offered struct {
	*Invite
	Done    bool
	Pending *Record // what the other side signed, for a person to confirm
}

// Offers lists the invites.
func (b *Book) Offers() []Offered {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []Offered{}
	for _, m := range b.invites {
		o := Offered{Invite: m.invite, Done: m.Done}
		if r, err := ParseRecord(m.Pending); err == nil {
			o.Pending = r
		}
		all = append(all, o)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].ID[:], all[j].ID[:]) < 0 })
	return all
}

// offer finds an invite that a visitor proved to know.
func (b *Book) offer(id InviteID, proven [32]byte, visitor, host key.Public, now int64) (*made, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.invites[id]
	if m == nil {
		return nil, ErrOver
	}
	want := proof(m.invite.Secret, visitor, host)
	if subtle.ConstantTimeCompare(want[:], proven[:]) != 1 || now >= m.invite.Expires {
		return nil, ErrOver // the same word: who guesses learns nothing
	}
	c := *m
	return &c, nil
}

// fits tells whether a record is what an invite offers, signed by the other side.
func (b *Book) fits(m *made, r *Record) error {
	own, other, ok := r.Of(b.own)
	if !ok {
		return fmt.Errorf("record of other clusters: %w", ErrUntrusted)
	}
	v := m.invite
	offered := v.Offer
	offered.List = own.List
	if !bytes.Equal(offered.append(nil), own.append(nil)) || !bytes.Equal(v.Asks.append(nil), other.Gives.append(nil)) || r.Expires != v.Until {
		return fmt.Errorf("record: %w: it is not what was offered", ErrUntrusted)
	}
	b.mu.Lock()
	err := b.mayLocked(b.pairs[r.Pair()], r)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	i := 0
	if other == &r.Sides[1] {
		i = 1
	}
	return r.Signed(i)
}

// hold keeps a record that waits for a person here. The first cluster that takes an invite is the one.
func (b *Book) hold(id InviteID, raw []byte) error {
	r, err := ParseRecord(raw)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.invites[id]
	if m == nil || m.Done {
		return ErrOver
	}
	if old, err := ParseRecord(m.Pending); err == nil && old.Pair() != r.Pair() {
		return ErrOver
	}
	m.Pending = slices.Clone(raw)
	return b.saveLocked()
}

// done notes that an invite was used.
func (b *Book) done(id InviteID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.invites[id]; m != nil {
		m.Done, m.Pending = true, nil
	}
	return b.saveLocked()
}
