package member

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
)

// Revocation is one entry of an admin's list of revoked and restored nodes. Each entry is signed by itself, so that the
// list has no bound but the State's, grows by what is new, and survives an admin whose own copy was restored from a
// backup. Of one node the highest N counts, whoever signed it; at equal N revoked wins.
type Revocation struct {
	Admin   key.Public // who signed it
	Node    key.Public
	Revoked bool // else restored
	N       uint32
	Issued  int64 // unix seconds
}

// Sign encodes the entry, with the admin's key in it, and signs it:
//
//	kind 1 │ version 1 │ state 1 (1 revoked, 2 restored) │ zero 1 │ admin 32 │ node 32 │ n 4 │ issued 8 │ signature 64
func (r *Revocation) Sign(network key.NetworkID, admin *key.Private) ([]byte, error) {
	who := admin.Public()
	b := []byte{byte(KindRevocation), statementVersion, 2, 0}
	if r.Revoked {
		b[2] = 1
	}
	b = append(b, who[:]...)
	b = append(b, r.Node[:]...)
	b = binary.BigEndian.AppendUint32(b, r.N)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Issued))
	raw := seal(b, network, admin)
	if _, err := ParseRevocation(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseRevocation decodes an entry; it does not check the signature.
func ParseRevocation(raw []byte) (*Revocation, error) {
	c, err := open(raw, KindRevocation)
	if err != nil {
		return nil, err
	}
	state := c.U8()
	c.Zero(1)
	r := &Revocation{Revoked: state == 1, Admin: c.key(), Node: c.key(), N: c.U32(), Issued: c.Unix()}
	c.Bad = c.Bad || state != 1 && state != 2 || r.N == 0
	if err := c.end("revocation"); err != nil {
		return nil, err
	}
	return r, nil
}

// TimeStatement is an admin's word that it is at least Issued. It confirms clocks and raises floors where nothing else is
// signed for a while.
type TimeStatement struct {
	Admin  key.Public
	Issued int64 // unix seconds
}

// Sign encodes the time and signs it:
//
//	kind 1 │ version 1 │ admin 32 │ issued 8 │ signature 64
func (t *TimeStatement) Sign(network key.NetworkID, admin *key.Private) ([]byte, error) {
	who := admin.Public()
	b := append([]byte{byte(KindTime), statementVersion}, who[:]...)
	raw := seal(binary.BigEndian.AppendUint64(b, uint64(t.Issued)), network, admin)
	if _, err := ParseTimeStatement(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseTimeStatement decodes a time; it does not check the signature.
func ParseTimeStatement(raw []byte) (*TimeStatement, error) {
	c, err := open(raw, KindTime)
	if err != nil {
		return nil, err
	}
	t := &TimeStatement{Admin: c.key(), Issued: c.Unix()}
	if err := c.end("time"); err != nil {
		return nil, err
	}
	return t, nil
}
