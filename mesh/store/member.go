package store

import (
	"bytes"
	"encoding/binary"

	"skywire/mesh/key"
)

const (
	keyFloor   = "floor"
	keyCluster = "cluster"
)

// refLen is the length of what a statement is kept under; mesh/member names statements.
const refLen = 9

// PutStatement keeps a statement of a cluster's membership as signed. raw must stay unchanged until Batch returns.
func (t *Tx) PutStatement(ref [refLen]byte, raw []byte) {
	t.put(statements, bytes.Clone(ref[:]), nonNil(raw))
}

// DeleteStatement removes a statement.
func (t *Tx) DeleteStatement(ref [refLen]byte) { t.put(statements, bytes.Clone(ref[:]), nil) }

// DeleteStatements removes all.
func (t *Tx) DeleteStatements() { t.put(statements, nil, nil) }

// Statements returns all statements, raw. Whoever uses one verifies it again.
func (d *DB) Statements() (all [][]byte, err error) {
	err = d.each(statements, func(k, v []byte) bool {
		if len(k) != refLen {
			return false
		}
		all = append(all, bytes.Clone(v))
		return true
	})
	return all, err
}

// PutFloor keeps the earliest time it can be, in unix seconds.
func (t *Tx) PutFloor(unix int64) {
	t.put(meta, []byte(keyFloor), binary.BigEndian.AppendUint64(nil, uint64(unix)))
}

// Floor returns it, 0 if none was kept.
func (d *DB) Floor() (int64, error) {
	n, err := d.metaNumber(keyFloor)
	return int64(n), err
}

// PutCluster keeps which cluster this box belongs to; the zero key: none.
func (t *Tx) PutCluster(k key.Public) {
	if k.IsZero() {
		t.put(meta, []byte(keyCluster), nil)
		return
	}
	t.put(meta, []byte(keyCluster), bytes.Clone(k[:]))
}

// Cluster returns it, the zero key if there is none.
func (d *DB) Cluster() (k key.Public, err error) {
	err = d.each(meta, func(name, v []byte) bool {
		if string(name) != keyCluster {
			return true
		}
		var bad error
		k, bad = key.FromBytes(v)
		return bad == nil
	})
	return k, err
}

// PutOffer keeps an invite of this box's issuer, as mesh/manager encodes it, under its id.
func (t *Tx) PutOffer(id [8]byte, raw []byte) { t.put(offers, bytes.Clone(id[:]), nonNil(raw)) }

// DeleteOffer forgets an invite.
func (t *Tx) DeleteOffer(id [8]byte) { t.put(offers, bytes.Clone(id[:]), nil) }

// Offers returns all invites, raw.
func (d *DB) Offers() (all [][]byte, err error) {
	err = d.each(offers, func(k, v []byte) bool {
		if len(k) != 8 {
			return false
		}
		all = append(all, bytes.Clone(v))
		return true
	})
	return all, err
}
