package messenger

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
	"skywire/signal"
)

// importPage is how many messages one batch of an import has.
const importPage = 256

// Import adds messages that another store exported, in their order; those that are there stay as they are. It returns how many
// were new. Nothing is sent: what was queued there shows as failed here.
func (e *Engine) Import(ctx context.Context, all []Message) (n int, err error) {
	for len(all) > 0 && err == nil {
		page := all[:min(importPage, len(all))]
		all = all[len(page):]
		err = e.durable(ctx, func(c *core) error {
			for i := range page {
				if c.importOne(&page[i]) {
					n++
				}
			}
			return nil
		})
	}
	return n, err
}

func (c *core) importOne(v *Message) bool {
	if len(v.Body) > envelope.MaxBody || v.Account.IsZero() || v.ID == (MessageID{}) {
		return false
	}
	if _, held := c.known(v.ID); held {
		return false
	}
	m := &record{
		id: v.ID, account: c.accountOf(v.Account).number, kind: v.Kind, group: v.Group, time: v.Time.UnixMilli(),
		expires: v.Expires.Unix(), state: v.State, since: v.Since.UnixMilli(), reason: v.Reason[:min(len(v.Reason), 256)], body: v.Body,
	}
	if v.Out {
		m.flags |= flagOut | flagSeen
	}
	if v.Copied {
		m.flags |= flagCopied
	}
	if v.Seen {
		m.flags |= flagSeen
	}
	switch m.state {
	case Delivered, Read, Failed, Received:
	case Queued, Sent, Stored:
		m.state, m.reason = Failed, "not delivered when it was exported"
	default:
		m.state = Received
	}
	if m.out() && m.state == Received {
		m.state = Delivered
	}
	c.store(m)
	return true
}

// GroupOps are the changes of a group as signed, for an export.
func (e *Engine) GroupOps(id envelope.GroupID) ([][]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.core.groups[id]
	if g == nil {
		return nil, ErrNoGroup
	}
	return g.roster.Ops(), nil
}

// ImportGroup takes a group of which we are a member from an export, by its signed changes. It reports whether it was not there; one
// that is, stays as it is: its members tell what is new.
func (e *Engine) ImportGroup(ctx context.Context, ops [][]byte) (added bool, err error) {
	r := &group.Roster{}
	for _, raw := range ops[:min(len(ops), group.MaxOps)] {
		if _, _, err := r.Put(raw); err != nil {
			return false, fmt.Errorf("group: %w", err)
		}
	}
	if r.Generation() == 0 {
		return false, fmt.Errorf("group: %w: no beginning", ErrFormat)
	}
	err = e.durable(ctx, func(c *core) error {
		if c.groups[r.ID()] != nil || !r.Has(c.account) {
			return nil
		}
		if c.groupBytes()+int64(r.Size()) > c.cfg.Quota/groupShare {
			return ErrGroupsFull
		}
		added = true
		_, err := c.addGroup(r)
		return err
	})
	return added && err == nil, err
}

// ImportFile takes the record of a file, not what was in it, from an export. What was under way there has failed here.
func (e *Engine) ImportFile(ctx context.Context, f File) (added bool, err error) {
	if f.Account.IsZero() || f.ID == (MessageID{}) || f.Size < 0 || f.Size > MaxFile {
		return false, fmt.Errorf("file: %w", ErrFormat)
	}
	t := &transfer{rec: fileRecord{
		Message: hexID(f.ID), Account: f.Account, Out: f.Out, Name: cleanName(f.Name), Path: signal.Printable(f.Path, ""), Size: f.Size,
		State: f.State, Reason: signal.Printable(f.Reason[:min(len(f.Reason), 256)], ""), Since: f.Since.Unix(),
	}}
	switch f.State {
	case FileDone, FileRefused, FileFailed, FileCanceled:
	default:
		t.rec.State, t.rec.Reason = FileFailed, "not complete when it was exported"
	}
	if _, err := rand.Read(t.rec.ID[:]); err != nil {
		return false, err
	}
	err = e.durable(ctx, func(c *core) error {
		if c.fileOf(f.ID) != nil || len(c.files) >= maxFileSet {
			return nil
		}
		added, t.no = true, c.number()
		c.files[t.no] = t
		c.saveFile(t)
		return nil
	})
	return added && err == nil, err
}

// Meet remembers where an account is met, without making it a contact.
func (e *Engine) Meet(account key.Public, at envelope.Place) error {
	return e.durable(context.Background(), func(c *core) error {
		c.meet(account, at)
		return nil
	})
}

func (c *core) meet(k key.Public, at envelope.Place) *account {
	a := c.accountOf(k)
	c.admitBrought(a)
	if len(a.devices) > 0 || k == c.account || at.Cluster.IsZero() && len(at.Contacts) == 0 && !a.place.Cluster.IsZero() {
		return a
	}
	a.place, a.asked = at, time.Time{}
	c.saveAccount(a)
	if at.Cluster != k { // it is its own device
		d := c.deviceOf(k, a)
		d.rec.Place = at
		c.saveDevice(d)
		if d.link != nil {
			d.link.pumpDue = true
		}
	}
	return a
}

// Sibling says that a node of our own network may be another device of our account: it is met, and is one if its card says so.
func (e *Engine) Sibling(device key.Public) { e.call(func(c *core) { c.sibling(device) }) }

func (c *core) sibling(device key.Public) {
	if device == c.self || c.account == c.self || c.kin[device] || len(c.kin) >= envelope.MaxDevices {
		return
	}
	c.kin[device] = true
	d := c.deviceOf(device, nil)
	if d.rec.Card == 0 {
		d.rec.Place = c.card.Place
	}
	c.busy[d] = true
	c.wanted(d)
}

// PlaceOf is where an account is met, by the newest card of it, else by its link.
func (e *Engine) PlaceOf(account key.Public) (at envelope.Place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.core.placeOf(account)
}

func (c *core) placeOf(account key.Public) (at envelope.Place) {
	if account == c.account {
		return c.card.Place
	}
	a := c.accounts[account]
	if a == nil {
		return at
	}
	at = a.place
	newest := uint64(0)
	for _, d := range a.devices {
		if d.rec.Card > newest {
			newest, at = d.rec.Card, d.rec.Place
		}
	}
	return at
}
