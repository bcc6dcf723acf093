// Package prekeys keeps the secrets of the prekeys that a device opens envelopes with: it makes them every day and erases them
// 14 days later, on disk too, in a file of their own that is overwritten in place (store.Small). What others sealed before then
// stays closed, whoever gets the box and its keys later.
//
// It opens no envelopes, signs no cards and reads no clock. A box whose clock runs ahead loses what is on its way to it (the
// senders seal again for its next card); one whose clock was set back gets new ones, for a secret that ends in ten years is
// none. File systems that copy on write and flash below them may keep old blocks: there, RAM only is what keeps the promise.
package prekeys

import (
	"fmt"
	"sync"
	"time"

	"skywire/mesh/messenger/envelope"
	"skywire/mesh/store"
)

// keep bounds the secrets held: one a day, and as many again for a clock that was turned.
const keep = 2 * int(envelope.PrekeyLife/envelope.PrekeyEvery)

const day = int64(envelope.PrekeyEvery / time.Second)

// Ring is the set of secrets that are not over.
type Ring struct {
	mu   sync.RWMutex // guards the fields below
	file *store.Small
	all  []*envelope.Secret // numbers rise
	last uint32             // number given last, of one that may be erased
}

// Open reads the file, or makes it; without path the secrets are in memory alone. Turn comes before anything else.
func Open(path string) (*Ring, error) {
	f, err := store.OpenSmall(path)
	if err != nil {
		return nil, fmt.Errorf("open prekeys: %w", err)
	}
	r := &Ring{file: f}
	for b := f.Read(); len(b) >= envelope.SecretLen; b = b[envelope.SecretLen:] {
		s, err := envelope.ParseSecret(b[:envelope.SecretLen])
		if err != nil { // never: the file has a checksum
			return nil, fmt.Errorf("open prekeys: %w", err)
		}
		r.all = append(r.all, s)
		r.last = max(r.last, s.ID)
	}
	return r, nil
}

// Turn erases what is over at now (unix seconds) and makes the day's secret if there is none. News tells that the card is to be
// made anew. On an error nothing was made, and what is over is gone from memory at least.
func (r *Ring) Turn(now int64) (news bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var held []*envelope.Secret
	for _, s := range r.all {
		if s.NotAfter <= now || s.NotBefore > now+day {
			s.Erase()
			continue
		}
		held = append(held, s)
	}
	for len(held) >= keep {
		held[0].Erase()
		held = held[1:]
	}
	erased := len(held) != len(r.all)
	r.all = held
	if n := len(held); n > 0 && held[n-1].NotBefore+day > now {
		if !erased {
			return false, nil
		}
		return false, r.write(held)
	}
	// Minutes since 1970, so that a box that lost its memory gives no number again.
	s, err := envelope.NewSecret(max(r.last+1, uint32(min(max(now/60, 0), 1<<32-1))), now)
	if err != nil {
		return false, err
	}
	if err := r.write(append(held, s)); err != nil {
		return false, err
	}
	r.all, r.last = append(held, s), s.ID
	return true, nil
}

func (r *Ring) write(all []*envelope.Secret) error {
	b := make([]byte, 0, len(all)*envelope.SecretLen)
	for _, s := range all {
		b = s.Append(b)
	}
	defer clear(b)
	if err := r.file.Write(b); err != nil {
		return fmt.Errorf("write prekeys: %w", err)
	}
	return nil
}

// Next is when to call Turn again, in unix seconds; 0: at once.
func (r *Ring) Next() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.all) == 0 {
		return 0
	}
	next := r.all[len(r.all)-1].NotBefore + day
	for _, s := range r.all {
		next = min(next, s.NotAfter)
	}
	return next
}

// Public are the newest prekeys, of each suite one, for the card.
func (r *Ring) Public() ([]envelope.Prekey, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.all) == 0 {
		return nil, nil
	}
	var all []envelope.Prekey
	for _, suite := range []envelope.Suite{envelope.SuiteX25519, envelope.SuiteHybrid} {
		p, err := r.all[len(r.all)-1].Prekey(suite)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Secret is the secret of a number, nil if it is not held; for envelope.Open. It is the caller's.
func (r *Ring) Secret(id uint32) *envelope.Secret {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.all {
		if s.ID == id {
			c := *s
			return &c
		}
	}
	return nil
}

// Close closes the file.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
