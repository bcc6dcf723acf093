package messenger

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
	"skywire/signal"
)

// Errors of groups.
var (
	// ErrNoGroup is returned for an id that names no group of ours.
	ErrNoGroup error = &refusal{signal.ErrNotFound, "no such group; messenger group list shows them"}
	// ErrNotMember is returned when we are no longer in a group.
	ErrNotMember error = &refusal{signal.ErrRefused, "we are not in this group any more; an admin of it can add us again"}
	// ErrAlone is returned when there is nobody else in a group to send to.
	ErrAlone error = &refusal{signal.ErrRefused, "nobody else is in this group; messenger group add brings in a contact"}
	// ErrGroupsFull is returned when no more groups are held.
	ErrGroupsFull error = &refusal{signal.ErrBusy, "no room for more groups; messenger group leave makes some"}
	// ErrGroupRule is returned for a change that we may not make.
	ErrGroupRule error = &refusal{signal.ErrRefused, "not ours to change: admins add, rename and promote, and evict or demote members and those who became admins after them"}
	// ErrGroupFull is returned when a group has no room for a member, an admin or a change.
	ErrGroupFull error = &refusal{signal.ErrBusy, "the group is full: 64 members, 16 admins; or of changes: its founder's box makes room when it is on"}
)

// groupError puts what the roster says into words for people.
func groupError(err error) error {
	switch {
	case errors.Is(err, group.ErrForbidden):
		return ErrGroupRule
	case errors.Is(err, group.ErrFull):
		return ErrGroupFull
	}
	return err
}

// Groups lists the groups that we are in, or were, by name.
func (e *Engine) Groups() (all []GroupInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, g := range e.core.groups {
		all = append(all, e.core.groupInfo(g))
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Name != all[j].Name {
			return all[i].Name < all[j].Name
		}
		return bytes.Compare(all[i].ID[:], all[j].ID[:]) < 0
	})
	return all
}

// GroupNames are what groups are called.
func (e *Engine) GroupNames() map[envelope.GroupID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make(map[envelope.GroupID]string, len(e.core.groups))
	for id, g := range e.core.groups {
		all[id] = g.roster.Name()
	}
	return all
}

func (c *core) groupInfo(g *groupLog) GroupInfo {
	r := g.roster
	epoch := r.Epoch()
	v := GroupInfo{
		ID: r.ID(), Name: r.Name(), Members: []GroupMember{}, Epoch: hex.EncodeToString(epoch[:]), Generation: r.Generation(), Changes: r.Len(),
		Member: r.Has(c.account), Admin: r.Admin(c.account),
	}
	for _, m := range r.Members() {
		v.Members = append(v.Members, GroupMember{m.Account, m.Admin, m.Account == r.Founder(), m.Account == c.account})
	}
	return v
}

// CreateGroup founds a group with contacts.
func (e *Engine) CreateGroup(ctx context.Context, name string, members []key.Public) (id envelope.GroupID, err error) {
	if !envelope.ValidName(name) {
		return id, &refusal{signal.ErrUsage, fmt.Sprintf("the name of a group has at most %d bytes that can be shown on one line", envelope.MaxName)}
	}
	err = e.durable(ctx, func(c *core) error {
		var seats []group.Seat
		for _, k := range members {
			if k == c.account {
				continue
			}
			if err := c.book.MaySend(k); err != nil {
				return fmt.Errorf("%s: %w", k.Short(), err)
			}
			seats = append(seats, group.Seat{Account: k, Place: c.placeOf(k)})
		}
		r, err := group.New(c.author(), c.now.Unix(), name, c.card.Place, seats)
		if err != nil {
			return fmt.Errorf("create group: %w", err)
		}
		g, err := c.addGroup(r)
		if err != nil {
			return err
		}
		c.tellMembers(g, r.Ops(), key.Public{})
		id = r.ID()
		return nil
	})
	return id, err
}

// GroupAdd brings a contact into a group.
func (e *Engine) GroupAdd(ctx context.Context, id envelope.GroupID, account key.Public) error {
	return e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		if err := c.book.MaySend(account); err != nil {
			return err
		}
		return c.groupChange(g, &group.Op{Kind: group.Add, Target: account, Place: c.placeOf(account)})
	})
}

// GroupRemove evicts a member.
func (e *Engine) GroupRemove(ctx context.Context, id envelope.GroupID, account key.Public) error {
	return e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		return c.groupChange(g, &group.Op{Kind: group.Remove, Target: account})
	})
}

// GroupAdmin makes a member an admin, or an admin a member.
func (e *Engine) GroupAdmin(ctx context.Context, id envelope.GroupID, account key.Public, on bool) error {
	kind := group.Demote
	if on {
		kind = group.Promote
	}
	return e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		return c.groupChange(g, &group.Op{Kind: kind, Target: account})
	})
}

// GroupRename gives a group another name.
func (e *Engine) GroupRename(ctx context.Context, id envelope.GroupID, name string) error {
	return e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		return c.groupChange(g, &group.Op{Kind: group.Rename, Name: name})
	})
}

// GroupLeave leaves a group.
func (e *Engine) GroupLeave(ctx context.Context, id envelope.GroupID) error {
	return e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		return c.groupChange(g, &group.Op{Kind: group.Leave})
	})
}

// GroupSend says something in a group: to each member by itself, so who was evicted gets nothing.
func (e *Engine) GroupSend(ctx context.Context, id envelope.GroupID, body []byte) (m MessageID, err error) {
	err = e.inGroup(ctx, id, func(c *core, g *groupLog) error {
		to := c.groupTo(g)
		if len(to) == 0 {
			return ErrAlone
		}
		for _, k := range to {
			c.introduce(g, k)
		}
		m, err = c.send(to, Outgoing{Kind: envelope.KindText, Group: id, Body: body})
		return err
	})
	return m, err
}

// inGroup runs fn on a group that we are in.
func (e *Engine) inGroup(ctx context.Context, id envelope.GroupID, fn func(c *core, g *groupLog) error) error {
	err := e.durable(ctx, func(c *core) error {
		g := c.groups[id]
		if g == nil {
			return ErrNoGroup
		}
		if !g.roster.Has(c.account) {
			return ErrNotMember
		}
		return fn(c, g)
	})
	return groupError(err)
}
