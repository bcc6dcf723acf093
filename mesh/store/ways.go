package store

import (
	"bytes"

	"skywire/mesh/key"
)

// MaxWays bounds what is remembered of networks: a phone's worth of cafés, for a few peers each. Who writes keeps it.
const MaxWays = 256

// Way is where and with whom something worked.
type Way struct {
	Network [8]byte // hash of what tells one place from another
	Peer    key.Public
}

// PutWay remembers the carrier by which a peer was reached in a network; empty: forget.
func (t *Tx) PutWay(w Way, carrier string) {
	var v []byte
	if carrier != "" {
		v = []byte(carrier)
	}
	t.put(waysKnown, append(bytes.Clone(w.Network[:]), w.Peer[:]...), v)
}

// Ways returns all that is remembered.
func (d *DB) Ways() (map[Way]string, error) {
	all := map[Way]string{}
	err := d.each(waysKnown, func(k, v []byte) bool {
		var w Way
		if len(k) != len(w.Network)+len(w.Peer) {
			return false
		}
		copy(w.Network[:], k)
		copy(w.Peer[:], k[len(w.Network):])
		all[w] = string(v)
		return true
	})
	return all, err
}
