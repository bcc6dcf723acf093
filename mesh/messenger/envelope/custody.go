package envelope

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
)

// MaxCustody bounds the envelopes of one Custody.
const MaxCustody = 64

// Custody is a mailbox's signed word that it keeps envelopes. Who shows it proves that the mailbox took them.
type Custody struct {
	Mailbox key.Public // the device that keeps them
	To      key.Public // the device that they are for
	Issued  int64      // unix seconds
	Until   int64      // when it stops keeping them, at the latest
	IDs     []EnvelopeID
}

// Sign encodes the custody and signs it with the mailbox's key:
//
//	version 1 │ mailbox 32 │ to 32 │ issued 8 │ until 8 │ ids 1 │ each 32 │ signature 64
func (c *Custody) Sign(d *key.Private) ([]byte, error) {
	b := append(append([]byte{version}, c.Mailbox[:]...), c.To[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Issued))
	b = append(binary.BigEndian.AppendUint64(b, uint64(c.Until)), byte(len(c.IDs)))
	for _, id := range c.IDs {
		b = append(b, id[:]...)
	}
	raw := sign(b, "custody", d)
	if _, err := ParseCustody(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseCustody decodes a custody and checks its signature.
func ParseCustody(raw []byte) (*Custody, error) {
	c, body, sig, err := signed(raw, 1+32+32+8+8+1+32*MaxCustody+signatureLen, "custody")
	if err != nil {
		return nil, err
	}
	v := &Custody{Mailbox: c.identity(), To: c.listed(), Issued: c.Unix(), Until: c.Unix()}
	n := c.count(MaxCustody)
	c.Bad = c.Bad || n == 0
	for range n {
		v.IDs = append(v.IDs, EnvelopeID(c.Take(32)))
	}
	if err := c.end("custody"); err != nil {
		return nil, err
	}
	return v, verify(v.Mailbox, "custody", body, sig)
}
