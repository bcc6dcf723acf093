package route

import (
	"bytes"
	"math"
	"slices"
	"time"

	"skywire/mesh/key"
)

// own is the state of self-origination: which numbers this node may use, and whether another box uses its key.
type own struct {
	floor      uint64 // highest number heard or used
	first      time.Duration
	last       time.Duration
	signs      bucket
	signed     bool
	superseded bool // heard our key with a number not below ours
	boots      map[uint64]int
	twinUntil  time.Duration
}

// maxBoots bounds how many foreign boots of our own key are told apart.
const maxBoots = 16

// Originate signs r as this node's record if there is reason to: nothing signed yet, r says something new, the last one
// is due to be renewed, or our key was heard with a higher number. It sets Boot and Number, and keeps to the rates that
// others accept, so a node may call it every second with what is true now. ok is false if there is nothing to send.
//
// The caller stores DB.Number from time to time, so that a later start begins above it.
func (d *DB) Originate(now time.Duration, r *Record, p *key.Private) (e *Entry, ok bool) {
	held := d.entries[d.c.Self]
	if !d.originateDue(now, held, r) {
		return nil, false
	}
	c := *r
	d.own.floor++
	c.Boot, c.Number = d.c.Boot, d.own.floor
	raw := Sign(&c, p, d.c.Network)
	signed, err := parseUnverified(raw, true)
	if err != nil {
		panic("route: own record does not parse: " + err.Error())
	}
	e = &Entry{Record: signed, Raw: raw, From: d.c.Self, Born: now, member: true}
	d.remove(d.c.Self)
	d.insert(e)
	if !d.own.signed {
		d.own.first, d.own.signed = now, true
	}
	d.own.last, d.own.superseded = now, false
	d.own.signs.take(now, originRate, signBurst)
	return e, true
}

func (d *DB) originateDue(now time.Duration, held *Entry, r *Record) bool {
	if d.own.floor == math.MaxUint64 {
		return false // only we can have signed it; there is no higher number
	}
	if !d.own.signed || held == nil {
		return true
	}
	since := now - d.own.last
	if now < d.own.twinUntil && since < twinGap || since < signGap || d.own.signs.left(now, originRate, signBurst) < 1 {
		return false
	}
	if d.own.superseded || since >= d.c.Resign {
		return true
	}
	fitted, _ := r.Fit()
	switch change := compare(held.Record, fitted); {
	case change&^MeasuresChanged != 0, significant(held.Record, fitted):
		return true
	default:
		return change != 0 && since >= minorGap && drifted(held.Record, fitted)
	}
}

// Number is the highest number used or heard for the own key.
func (d *DB) Number() uint64 { return d.own.floor }

// Twin tells whether another box seems to run this node's key.
func (d *DB) Twin(now time.Duration) bool { return now < d.own.twinUntil }

// putOwn hears the node's own key from a neighbour. What earlier starts of this box said may still be about, and is
// overtaken once each; a number above ours that appears after that was made by a box that runs now.
func (d *DB) putOwn(now time.Duration, raw []byte, from key.Public) Verdict {
	_, number, _ := Peek(raw)
	held := d.entries[d.c.Self]
	switch {
	case held != nil && bytes.Equal(held.Raw, raw):
		d.stats.Known++
		return Verdict{Outcome: Known}
	case held != nil && number < held.Number:
		d.stats.Stale++
		return Verdict{Outcome: Stale, Newer: held}
	case held == nil && number <= d.own.floor, d.own.superseded && number <= d.own.floor:
		d.stats.Stale++
		return Verdict{Outcome: Stale}
	}
	src := d.source(now, from)
	if src != nil && src.verifies.left(now, verifyRate, verifyBurst) < 1 {
		d.stats.Busy++
		return Verdict{Outcome: Busy}
	}
	r, _, err := d.parse(now, src, raw, true)
	if err != nil {
		d.stats.Bad++
		return Verdict{Outcome: Bad, Err: err}
	}
	d.own.floor = max(d.own.floor, r.Number)
	d.own.superseded = true
	d.stats.Overtaken++
	if !d.foreign(now, r.Boot) {
		return Verdict{Outcome: Overtaken}
	}
	d.own.twinUntil = now + twinMemory
	d.stats.Twins++
	return Verdict{Outcome: Twin}
}

// foreign counts an overtaking by boot and tells whether it was made while we run.
func (d *DB) foreign(now time.Duration, boot uint64) bool {
	if boot == d.c.Boot || !d.own.signed {
		return false
	}
	if d.own.boots == nil || len(d.own.boots) >= maxBoots && d.own.boots[boot] == 0 {
		d.own.boots = make(map[uint64]int)
	}
	d.own.boots[boot]++
	return now-d.own.first >= settle || d.own.boots[boot] >= overtakes
}

// compare tells what differs between two records of one node, but for boot, number and the time it was made.
func compare(a, b *Record) (c Changes) {
	if a.Name != b.Name || a.Version != b.Version || a.IPv4 != b.IPv4 ||
		!slices.EqualFunc(a.Unknown, b.Unknown, func(x, y Item) bool { return x.Type == y.Type && bytes.Equal(x.Value, y.Value) }) {
		c |= NameChanged
	}
	if !slices.Equal(a.Addrs, b.Addrs) {
		c |= AddrsChanged
	}
	if !slices.Equal(a.Services, b.Services) {
		c |= ServicesChanged
	}
	if !slices.EqualFunc(a.Links, b.Links, func(x, y Link) bool { return x.Peer == y.Peer }) {
		return c | LinksChanged
	}
	same := func(x, y Link) bool {
		return x.RTT/time.Microsecond == y.RTT/time.Microsecond && lossPPM(x.Loss) == lossPPM(y.Loss) && x.Capacity == y.Capacity &&
			x.Jitter == y.Jitter && x.Flaps == y.Flaps && x.Up == y.Up && x.MTU == y.MTU && x.Carrier == y.Carrier
	}
	if !slices.EqualFunc(a.Links, b.Links, same) {
		c |= MeasuresChanged
	}
	return c
}
