package session

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"skywire/mesh/wire"
)

// Limits of a key, and of a Ring.
const (
	RekeyAfter   = 120 * time.Second
	RekeyJitter  = 10 * time.Second
	RejectAfter  = 180 * time.Second
	RekeyFrames  = 1 << 30
	RejectFrames = 1 << 32
	HopOverlap   = 10 * time.Second // how long a replaced hop key is still tried
	concurrent   = 5 * time.Second  // two rekeys this close may cross: both ends then agree by hash
	ringSize     = 4                // previous, current, next, and one more when both ends rekey at once
)

// RingConfig sets a Ring's timers; each zero value means the constant of the same name.
type RingConfig struct {
	RekeyAfter, RekeyJitter, RejectAfter time.Duration
	RekeyFrames, RejectFrames            uint64
}

type held struct {
	*Keys
	installed time.Duration
	proven    time.Duration // when the key was proven; meaningful if isProven
	isProven  bool
	chained   bool // came by a rekey
	frames    uint64
}

type answered struct {
	ephemeral [32]byte
	reply     []byte
}

// Ring holds the keys of one link or session. The newest proven key is the one to send with: for the initiator
// a key is proven by the answer it finished, for the responder by the first frame opened under it. All that are
// held may be received with.
type Ring struct {
	config   RingConfig
	keys     []*held // in order of installation
	lastID   uint8
	answered answered
}

// NewRing makes an empty ring.
func NewRing(c RingConfig) *Ring {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.RekeyAfter, RekeyAfter)
	def(&c.RekeyJitter, RekeyJitter)
	def(&c.RejectAfter, RejectAfter)
	if c.RekeyFrames == 0 {
		c.RekeyFrames = RekeyFrames
	}
	if c.RejectFrames == 0 {
		c.RejectFrames = RejectFrames
	}
	return &Ring{config: c}
}

// NewRecvID picks a key id for a handshake to come, in use by none of the keys held; never 0. It goes round, so
// an id returns only after 200 others.
func (r *Ring) NewRecvID() uint8 {
	for {
		r.lastID++
		if r.lastID != 0 && r.ByRecvID(r.lastID) == nil {
			return r.lastID
		}
	}
}

// Install adds the key of a finished handshake. It gives the key that had to go, nil mostly: see
// victim.
func (r *Ring) Install(now time.Duration, k *Keys) (dropped *Keys) {
	h := &held{Keys: k, installed: now}
	for _, o := range r.keys {
		if o.Hash == k.Hash {
			return nil // the same handshake, delivered twice
		}
		h.chained = h.chained || o.Hash == k.Bind
	}
	if k.Initiator {
		h.isProven, h.proven = true, now
	}
	if i := r.index(k.RecvID); i >= 0 {
		dropped = r.remove(i)
	} else if len(r.keys) >= ringSize {
		dropped = r.remove(r.victim(now))
	}
	r.keys = append(r.keys, h)
	return dropped
}

// victim picks the key to give up: one that had its time to be proven, else the oldest that is proven and replaced, else
// the oldest that is not sent with. A fresh key that waits for its proof stays as long as it can: where both ends begin
// anew at once, again and again, each would else throw out the only key that the other one sends with.
func (r *Ring) victim(now time.Duration) int {
	current := r.sending(now)
	for _, fits := range []func(*held) bool{
		func(h *held) bool { return !h.isProven && now-h.installed >= concurrent },
		func(h *held) bool { return h.isProven },
		func(*held) bool { return true },
	} {
		for i, h := range r.keys {
			if h != current && fits(h) {
				return i
			}
		}
	}
	return 0
}

// Opened records that a frame opened under the key of that id; true means that the key to send with changed.
func (r *Ring) Opened(now time.Duration, recvID uint8) bool {
	i := r.index(recvID)
	if i < 0 || r.keys[i].isProven {
		return false
	}
	before := r.Sending(now)
	r.keys[i].isProven, r.keys[i].proven = true, now
	return r.Sending(now) != before
}

// Sending is the key to send with at now, nil if none may be used any more.
func (r *Ring) Sending(now time.Duration) *Keys {
	if h := r.sending(now); h != nil {
		return h.Keys
	}
	return nil
}

func (r *Ring) sending(now time.Duration) *held {
	var best *held
	for _, h := range r.keys {
		if h.isProven && now-h.installed < r.config.RejectAfter && h.frames < r.config.RejectFrames && h.beats(best) {
			best = h
		}
	}
	return best
}

// beats says that h is to be used instead of o, which stands before it in the ring or is nil. Two rekeys that
// crossed are proven in different order at the two ends; there the larger hash decides.
func (h *held) beats(o *held) bool {
	if o == nil {
		return true
	}
	if h.crosses(o) {
		return bytes.Compare(h.Hash[:], o.Hash[:]) > 0
	}
	return h.proven >= o.proven
}

// crosses says that both ends started a rekey of the same key at the same time, and these are the two results.
func (h *held) crosses(o *held) bool {
	return h.chained && o.chained && h.Bind == o.Bind && h.Initiator != o.Initiator && (h.installed-o.installed).Abs() <= concurrent
}

// ByRecvID finds the key that a received frame names, nil if it is not held.
func (r *Ring) ByRecvID(id uint8) *Keys {
	if i := r.index(id); i >= 0 {
		return r.keys[i].Keys
	}
	return nil
}

// All lists the keys held, oldest first.
func (r *Ring) All() []*Keys {
	all := make([]*Keys, 0, len(r.keys))
	for _, h := range r.keys {
		all = append(all, h.Keys)
	}
	return all
}

// HopKeys gives what a link's labelled frames are checked and tagged with: in is tried first, other second (the
// key that comes, or for 10 s the one that went), out makes new tags. All nil if nothing may be sent.
func (r *Ring) HopKeys(now time.Duration) (in, other, out *HopKey) {
	current := r.sending(now)
	if current == nil {
		return nil, nil, nil
	}
	after := false
	for _, h := range r.keys { // oldest first
		switch {
		case h == current:
			after = true
		case now-h.installed >= r.config.RejectAfter:
		case after, (h.isProven || h.crosses(current)) && now-current.proven < HopOverlap:
			other = &h.HopRecv
		}
	}
	return &current.HopRecv, other, &current.HopSend
}

// Sent counts frames sealed under the key to send with.
func (r *Ring) Sent(now time.Duration, frames uint64) {
	if h := r.sending(now); h != nil {
		h.frames += frames
	}
}

// RekeyDue says that it is time to start a handshake bound to Sending's hash. The jitter comes from the
// handshake's hash; the responder of the last one waits longer, so that both ends seldom start at once. False
// while a new key waits for its proof.
func (r *Ring) RekeyDue(now time.Duration) bool {
	h := r.sending(now)
	if h == nil {
		return false
	}
	if last := r.keys[len(r.keys)-1]; last != h && !last.isProven && now-last.installed < concurrent {
		return false
	}
	return now-h.installed >= r.due(h) || h.frames >= r.config.RekeyFrames
}

func (r *Ring) due(h *held) time.Duration {
	j := float64(r.config.RekeyJitter)
	at := float64(r.config.RekeyAfter) + j*(2*float64(binary.BigEndian.Uint64(h.Hash[:]))/math.MaxUint64-1)
	if !h.Initiator {
		at += 3 * j
	}
	return time.Duration(at)
}

// Expire drops the keys that are too old even to receive with, and names them so that the data plane forgets
// them too.
func (r *Ring) Expire(now time.Duration) (erased []*Keys) {
	for i := 0; i < len(r.keys); {
		if now-r.keys[i].installed >= r.config.RejectAfter {
			erased = append(erased, r.remove(i))
			continue
		}
		i++
	}
	return erased
}

// Clear drops all keys.
func (r *Ring) Clear() (erased []*Keys) {
	erased = r.All()
	r.keys, r.answered = nil, answered{}
	return erased
}

// Answered remembers the answer to a rekey's first message, so that a repeat of it gets the same one.
func (r *Ring) Answered(msg1, msg2 []byte) {
	if len(msg1) == wire.Noise1Len {
		r.answered = answered{ephemeral: [32]byte(msg1), reply: bytes.Clone(msg2)}
	}
}

// Repeat gives the answer already made to that message, nil if it is new.
func (r *Ring) Repeat(msg1 []byte) []byte {
	if len(msg1) != wire.Noise1Len || r.answered.reply == nil || r.answered.ephemeral != [32]byte(msg1[:32]) {
		return nil
	}
	return r.answered.reply
}

func (r *Ring) index(id uint8) int {
	for i, h := range r.keys {
		if h.RecvID == id {
			return i
		}
	}
	return -1
}

func (r *Ring) remove(i int) *Keys {
	k := r.keys[i].Keys
	r.keys = append(r.keys[:i], r.keys[i+1:]...)
	return k
}
