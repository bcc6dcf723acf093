package envelope

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
)

// KeyChange says that an account goes on under another key. Both keys sign it: the old one gives the account away, the new one
// shows that it is not put on a stranger. It blocks the contact until a person confirms it all the same, for who stole the old
// key can sign it too.
type KeyChange struct {
	Old, New key.Public
	Issued   int64 // unix seconds
}

// Sign encodes the change and signs it with both keys, in this order:
//
//	version 1 │ old 32 │ new 32 │ issued 8 │ signature of old 64 │ signature of new 64
func (k *KeyChange) Sign(from, to *key.Private) ([]byte, error) {
	b := append(append([]byte{version}, k.Old[:]...), k.New[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(k.Issued))
	first := from.Sign("keychange", key.NetworkID{}, b)
	second := to.Sign("keychange", key.NetworkID{}, b)
	raw := append(append(b, first[:]...), second[:]...)
	if _, err := ParseKeyChange(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseKeyChange decodes a change and checks both signatures.
func ParseKeyChange(raw []byte) (*KeyChange, error) {
	const body = 1 + 32 + 32 + 8
	if len(raw) != body+2*signatureLen || raw[0] != version {
		return nil, fmt.Errorf("keychange: %w", ErrFormat)
	}
	c := fields(raw[1:body])
	k := &KeyChange{Old: c.identity(), New: c.identity(), Issued: c.Unix()}
	c.Bad = c.Bad || k.Old == k.New
	if err := c.end("keychange"); err != nil {
		return nil, err
	}
	if err := verify(k.Old, "keychange", raw[:body], raw[body:body+signatureLen]); err != nil {
		return nil, err
	}
	return k, verify(k.New, "keychange", raw[:body], raw[body+signatureLen:])
}
