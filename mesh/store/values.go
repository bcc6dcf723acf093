package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"skywire/mesh/key"
)

const (
	keySchema = "schema"
	keyBoots  = "boots"
	keyNumber = "number"

	ruleVersion = 1
	ruleLen     = 128
)

func number(v []byte) (uint64, bool) {
	if len(v) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(v), true
}

// Rule is one direction of a path through this relay. It names neighbours by key: links and their keys are new after a
// restart, these are not.
type Rule struct {
	InBase  uint32 // first label of this node
	OutBase uint32 // first label of the next node
	Lanes   uint8
	Flags   uint8
	Idle    uint16 // seconds without a frame after which the rule goes
	In, Out key.Public
	Source  key.Public // who signed the setup
	ID      [16]byte   // of the path
}

// Append appends the encoding of r, 128 bytes, numbers big endian:
//
//	version 1 │ flags 1 │ lanes 1 │ zero 1 │ in 4 │ out 4 │ idle 2 │ zero 2 │ id 16 │ in key 32 │ out key 32 │ source 32
func (r Rule) Append(b []byte) []byte {
	b = append(b, ruleVersion, r.Flags, r.Lanes, 0)
	b = binary.BigEndian.AppendUint32(b, r.InBase)
	b = binary.BigEndian.AppendUint32(b, r.OutBase)
	b = binary.BigEndian.AppendUint16(b, r.Idle)
	b = append(b, 0, 0)
	b = append(b, r.ID[:]...)
	b = append(b, r.In[:]...)
	b = append(b, r.Out[:]...)
	return append(b, r.Source[:]...)
}

// ParseRule decodes what Append makes.
func ParseRule(b []byte) (Rule, error) {
	if len(b) != ruleLen || b[0] != ruleVersion || b[3] != 0 || b[14] != 0 || b[15] != 0 {
		return Rule{}, fmt.Errorf("rule: %w", ErrFormat)
	}
	return Rule{
		Flags: b[1], Lanes: b[2],
		InBase: binary.BigEndian.Uint32(b[4:]), OutBase: binary.BigEndian.Uint32(b[8:]),
		Idle: binary.BigEndian.Uint16(b[12:]),
		ID:   [16]byte(b[16:]), In: key.Public(b[32:]), Out: key.Public(b[64:]), Source: key.Public(b[96:]),
	}, nil
}

// PutRules replaces all rules.
func (t *Tx) PutRules(all []Rule) {
	t.put(rules, nil, nil)
	for _, r := range all {
		t.PutRule(r)
	}
}

// PutRule adds one rule, or replaces that of its label.
func (t *Tx) PutRule(r Rule) {
	t.put(rules, binary.BigEndian.AppendUint32(nil, r.InBase), r.Append(make([]byte, 0, ruleLen)))
}

// DeleteRule removes the rule of a label.
func (t *Tx) DeleteRule(inBase uint32) { t.put(rules, binary.BigEndian.AppendUint32(nil, inBase), nil) }

// Rules returns all rules in order of their labels.
func (d *DB) Rules() (all []Rule, err error) {
	err = d.each(rules, func(k, v []byte) bool {
		r, err := ParseRule(v)
		if err != nil || !bytes.Equal(k, binary.BigEndian.AppendUint32(nil, r.InBase)) {
			return false
		}
		all = append(all, r)
		return true
	})
	return all, err
}

// PutRecord keeps the record of a node as signed. raw must stay unchanged until Batch returns.
func (t *Tx) PutRecord(k key.Public, raw []byte) { t.put(records, bytes.Clone(k[:]), nonNil(raw)) }

// DeleteRecord removes the record of a node.
func (t *Tx) DeleteRecord(k key.Public) { t.put(records, bytes.Clone(k[:]), nil) }

// PutRecords replaces all records.
func (t *Tx) PutRecords(all map[key.Public][]byte) {
	t.put(records, nil, nil)
	for k, raw := range all {
		t.PutRecord(k, raw)
	}
}

// Records returns all records, raw, in order of keys. Whoever uses one verifies it again.
func (d *DB) Records() (all [][]byte, err error) {
	err = d.each(records, func(k, v []byte) bool {
		if len(k) != key.Size {
			return false
		}
		all = append(all, bytes.Clone(v))
		return true
	})
	return all, err
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Pin keeps the key that answered at an address that was given without one.
func (t *Tx) Pin(addr string, k key.Public) {
	if addr != "" {
		t.put(pins, []byte(addr), bytes.Clone(k[:]))
	}
}

// Unpin forgets it.
func (t *Tx) Unpin(addr string) {
	if addr != "" {
		t.put(pins, []byte(addr), nil)
	}
}

// Pins returns the learnt keys by address.
func (d *DB) Pins() (map[string]key.Public, error) {
	all := make(map[string]key.Public)
	err := d.each(pins, func(k, v []byte) bool {
		p, err := key.FromBytes(v)
		if err == nil {
			all[string(k)] = p
		}
		return err == nil
	})
	return all, err
}

// Replay is what is known of the setup numbers of one source: the highest one and which of the 64 up to it were used
// (bit 0 is the highest).
type Replay struct {
	Highest, Window uint64
}

// PutReplay keeps the state of one source.
func (t *Tx) PutReplay(source key.Public, r Replay) {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 16), r.Highest)
	t.put(replay, bytes.Clone(source[:]), binary.BigEndian.AppendUint64(v, r.Window))
}

// DeleteReplay forgets a source.
func (t *Tx) DeleteReplay(source key.Public) { t.put(replay, bytes.Clone(source[:]), nil) }

// Replays returns the states of all sources.
func (d *DB) Replays() (map[key.Public]Replay, error) {
	all := make(map[key.Public]Replay)
	err := d.each(replay, func(k, v []byte) bool {
		if len(k) != key.Size || len(v) != 16 {
			return false
		}
		all[key.Public(k)] = Replay{Highest: binary.BigEndian.Uint64(v), Window: binary.BigEndian.Uint64(v[8:])}
		return true
	})
	return all, err
}

// CounterKey says what was counted: a link (its neighbour; Label 0) or a label of it.
type CounterKey struct {
	Peer  key.Public
	Label uint32
}

// Counters are cumulative over all starts. They never go back.
type Counters struct {
	RxPackets, RxBytes, TxPackets, TxBytes uint64
}

// PutCounters keeps one set of counters.
func (t *Tx) PutCounters(k CounterKey, c Counters) {
	v := make([]byte, 0, 32)
	for _, n := range [...]uint64{c.RxPackets, c.RxBytes, c.TxPackets, c.TxBytes} {
		v = binary.BigEndian.AppendUint64(v, n)
	}
	t.put(counters, k.bytes(), v)
}

// DeleteCounters removes one set of counters.
func (t *Tx) DeleteCounters(k CounterKey) { t.put(counters, k.bytes(), nil) }

func (k CounterKey) bytes() []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(k.Peer[:]), k.Label)
}

// Counters returns all counters.
func (d *DB) Counters() (map[CounterKey]Counters, error) {
	all := make(map[CounterKey]Counters)
	err := d.each(counters, func(k, v []byte) bool {
		if len(k) != key.Size+4 || len(v) != 32 {
			return false
		}
		all[CounterKey{Peer: key.Public(k), Label: binary.BigEndian.Uint32(k[key.Size:])}] = Counters{
			RxPackets: binary.BigEndian.Uint64(v), RxBytes: binary.BigEndian.Uint64(v[8:]),
			TxPackets: binary.BigEndian.Uint64(v[16:]), TxBytes: binary.BigEndian.Uint64(v[24:]),
		}
		return true
	})
	return all, err
}

// PutNumber keeps the highest number of the node's own record.
func (t *Tx) PutNumber(n uint64) {
	t.put(meta, []byte(keyNumber), binary.BigEndian.AppendUint64(nil, n))
}

// Number returns it, 0 if none was kept.
func (d *DB) Number() (uint64, error) { return d.metaNumber(keyNumber) }

// Boots returns how many starts were counted.
func (d *DB) Boots() (uint64, error) { return d.metaNumber(keyBoots) }

// CountBoot counts a start and returns which one it is, 1 for the first.
func (d *DB) CountBoot() (uint64, error) {
	n, err := d.Boots()
	if err != nil && !errors.Is(err, ErrFormat) {
		return 0, err
	}
	return n + 1, d.Batch(func(t *Tx) error {
		t.put(meta, []byte(keyBoots), binary.BigEndian.AppendUint64(nil, n+1))
		return nil
	})
}

func (d *DB) metaNumber(name string) (n uint64, err error) {
	bad := false
	err = d.each(meta, func(k, v []byte) bool {
		if string(k) != name {
			return true
		}
		var ok bool
		n, ok = number(v)
		bad = !ok
		return ok
	})
	if err == nil && bad {
		err = fmt.Errorf("read store %s: %s: %w", d.path, name, ErrFormat)
	}
	return n, err
}
