package envelope

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	stampLen = 8

	// MaxStamp bounds what a card may ask for: 26 bits are half a minute on a PC, and a quarter of an hour on a
	// router (BenchmarkWork: 0.5 µs, 15 µs on an emulated mipsle).
	MaxStamp = 26
	// DefaultStamp is what a device asks for unless told otherwise: 0.1 s on a PC, some seconds on a router, and a day
	// of a PC for a million messages.
	DefaultStamp = 18
)

// work counts the zero bits that SHA-256 of ("skystamp" │ id 32 │ nonce 8) begins with. Addressee, expiry and content are in
// the id, so a stamp is of one envelope alone and ends with it; checking costs one block of the hash.
func work(id EnvelopeID, nonce uint64) int {
	b := make([]byte, 0, 48)
	b = append(append(b, "skystamp"...), id[:]...)
	h := sha256.Sum256(binary.BigEndian.AppendUint64(b, nonce))
	n := 0
	for _, v := range h {
		if v != 0 {
			return n + bits.LeadingZeros8(v)
		}
		n += 8
	}
	return n
}

// Work is how many bits of work the stamp of an envelope shows, o being its ParseOuter.
func (o *Outer) Work(raw []byte) int {
	if len(raw) < stampLen {
		return 0
	}
	return work(o.ID, binary.BigEndian.Uint64(raw[len(raw)-stampLen:]))
}

// Stamp works until the envelope shows at least want bits; 2^want hashes on average. It writes into raw.
func Stamp(ctx context.Context, raw []byte, want int) error {
	if want > MaxStamp {
		return fmt.Errorf("stamp of %d bits: %w", want, ErrStamp)
	}
	o, err := ParseOuter(raw)
	if err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrStamp, context.Cause(ctx))
		}
		if work(o.ID, n) >= want {
			binary.BigEndian.PutUint64(raw[len(raw)-stampLen:], n)
			return nil
		}
	}
}
