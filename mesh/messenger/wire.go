package messenger

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Frames of a link between two devices, on one stream of the mesh: length 4 │ op 1 │ body. Links are SPEC.md's.
const (
	opHello   = 1 // version 1 │ account 32 │ device 32 │ nonce 16 │ cards held, 1 │ each {device 32, number 8}
	opProof   = 2 // the dialer's signature 64: on a visit the stream is another key's than the device's
	opCards   = 3 // each {length 2, card}
	opDeposit = 4 // tag 4 │ envelope
	opTaken   = 5 // tag 4 │ status 1
	opCustody = 6 // tag 4 │ custody
	opReceipt = 7 // as the item's body
	opSeek    = 8 // account 32: its cards, please

	linkVersion = 1
	// maxFrame bounds a frame: an envelope or four cards.
	maxFrame = 80 << 10
	maxHeld  = 16
)

// What is said of an envelope.
const (
	takenOK      = 0
	takenLater   = 1 // keep it; ask again
	takenCard    = 2 // who are you? your card first
	takenPrekey  = 3 // sealed for a prekey that is gone; our card comes
	takenRefused = 4 // never
)

type hello struct {
	account, device key.Public
	nonce           [16]byte
	held            map[key.Public]uint64
}

func (h *hello) append(dst []byte) []byte {
	dst = append(append(dst, opHello, linkVersion), h.account[:]...)
	dst = append(append(dst, h.device[:]...), h.nonce[:]...)
	dst = append(dst, byte(len(h.held)))
	for k, n := range h.held {
		dst = binary.BigEndian.AppendUint64(append(dst, k[:]...), n)
	}
	return dst
}

func parseHello(b []byte) (*hello, error) {
	r := fields(b)
	if v := r.U8(); v != linkVersion && !r.Bad {
		return nil, fmt.Errorf("hello of version %d: %w", v, ErrFormat)
	}
	h := &hello{account: r.public(), device: r.public(), held: map[key.Public]uint64{}}
	copy(h.nonce[:], r.Take(16))
	n := int(r.U8())
	r.Bad = r.Bad || n > maxHeld
	for range n {
		if r.Bad {
			break
		}
		k := r.public()
		h.held[k] = r.U64()
	}
	return h, r.end("hello")
}

// proofOf is what a dialer signs: who dials whom, and both nonces, so that it proves nothing to another.
func proofOf(dialer, acceptor *hello) []byte {
	b := append([]byte{linkVersion}, dialer.device[:]...)
	b = append(append(b, acceptor.device[:]...), dialer.nonce[:]...)
	return append(b, acceptor.nonce[:]...)
}

func newNonce() (n [16]byte) {
	_, _ = rand.Read(n[:]) // never fails
	return n
}

func tagged(op byte, tag uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{op}, tag), body...)
}

func cardsFrame(all [][]byte) []byte {
	b := []byte{opCards}
	for _, raw := range all {
		if len(b)+2+len(raw) <= maxFrame {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(raw))), raw...)
		}
	}
	return b
}

func parseCards(b []byte) (all [][]byte, err error) {
	r := fields(b)
	for len(r.B) > 0 && !r.Bad && len(all) < maxHeld {
		n := int(r.U16())
		r.Bad = r.Bad || n > envelope.MaxCard
		all = append(all, r.Take(n))
	}
	return all, r.end("cards")
}
