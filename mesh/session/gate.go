package session

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/dchest/siphash"
	"golang.org/x/crypto/chacha20poly1305"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// Limits of a Gate. None of its tables grows with forged addresses.
const (
	MaxPending        = 256 // handshakes answered and not proven, all peers
	MaxPendingPerPeer = 4
	PendingLife       = 5 * time.Second
	GateThreshold     = 20 // handshakes a second before cookies are asked for
	gateCeiling       = 5  // times the threshold, with cookies: what a small box can compute
	replyRate         = 10 // ISME and HINT a second; COOKIE a second for each of cookieBuckets
	cookieBuckets     = 256
	maxSeen           = 1024 // ephemerals remembered, so that a replay costs no multiplication
)

// GateConfig sets up a Gate.
type GateConfig struct {
	Identity  *key.Private
	Network   key.NetworkID
	Threshold int       // handshakes a second; 0 means GateThreshold
	Open      bool      // answer WHO
	Random    io.Reader // nil: crypto/rand
}

// Pending is an answered handshake that no frame has proven yet. It gives the peer no standing.
type Pending struct {
	Keys   *Keys
	From   netip.AddrPort
	Label  uint32 // ours, on which the first frame will come
	Theirs uint32 // their link label

	ephemeral [32]byte
	noise     [wire.Noise1Len]byte
	reply     []byte
	until     time.Duration
}

// Answer decides about a handshake whose sender's key is proven but which may be a replay: it gives our payload
// and the link label that we allot, or refuses. It must change nothing else.
type Answer func(peer key.Public, theirs wire.Payload) (ours wire.Payload, label uint32, err error)

// Answered returns when it was.
func (p *Pending) Answered() time.Duration { return p.until - PendingLife }

// Gate is the responder's side of the frames around a handshake: mac1, cookies under load, the table of pending
// handshakes, and the few answers that strangers may get.
type Gate struct {
	config  GateConfig
	keys    macKeys
	random  io.Reader
	load    Limiter
	ceiling Limiter
	who     Limiter
	hint    Limiter
	cookies []Limiter

	secret, previous [32]byte
	rotated          time.Duration
	bucketKey        [2]uint64

	pending []*Pending // oldest first
	dropped []*Pending // evicted, to be reported by Expire
	seen    map[[32]byte]struct{}
	order   [][32]byte // of seen, oldest first
}

// NewGate makes a gate for one identity.
func NewGate(c GateConfig) (*Gate, error) {
	if c.Identity == nil {
		return nil, fmt.Errorf("%w: no identity", ErrConfig)
	}
	if c.Threshold == 0 {
		c.Threshold = GateThreshold
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	g := &Gate{
		config: c, keys: newMACKeys(c.Identity.Public()), random: c.Random,
		load:    NewLimiter(c.Threshold, c.Threshold),
		ceiling: NewLimiter(c.Threshold*gateCeiling, c.Threshold*gateCeiling),
		who:     NewLimiter(replyRate, replyRate),
		hint:    NewLimiter(replyRate, replyRate),
		seen:    map[[32]byte]struct{}{},
	}
	var b [16]byte
	for _, p := range [][]byte{g.secret[:], g.previous[:], b[:]} {
		if _, err := io.ReadFull(g.random, p); err != nil {
			return nil, fmt.Errorf("gate secret: %w", err)
		}
	}
	for i, v := range b {
		g.bucketKey[i/8] = g.bucketKey[i/8]<<8 | uint64(v)
	}
	for range cookieBuckets {
		g.cookies = append(g.cookies, NewLimiter(replyRate, replyRate))
	}
	return g, nil
}

// Respond takes an INIT as it came. It gives the frame to send back, if any: a RESP with a new Pending; the RESP
// given before, if the same INIT comes again from the same address; a COOKIE with ErrBusy. Of c, Identity must be
// the gate's. Stream says that the carrier has proved the address (TCP, WSS): no cookies there.
//
// The stages, cheapest first: form, mac1, seen before, load, small order, room, the handshake itself.
func (g *Gate) Respond(now time.Duration, from netip.AddrPort, stream bool, c Config, b []byte, answer Answer) ([]byte, *Pending, error) {
	f, err := wire.ParseInit(b)
	if err != nil {
		return nil, nil, err
	}
	if want := g.keys.sum(b[:wire.InitMAC1]); !equal(want[:], f.MAC1[:]) {
		return nil, nil, ErrMAC
	}
	g.drop(now)
	e := [32]byte(f.Noise[:32])
	if _, ok := g.seen[e]; ok {
		out, err := g.again(from, e, &f)
		return out, nil, err
	}
	if out, err := g.admit(now, from, stream, b, &f); err != nil {
		return out, nil, err
	}
	if len(g.pending) >= MaxPending {
		return nil, nil, ErrBusy
	}
	p := &Pending{From: from, Theirs: f.Label, ephemeral: e, noise: f.Noise, until: now + PendingLife}
	msg2, keys, err := Respond(c, f.Noise[:], func(peer key.Public, theirs wire.Payload) (wire.Payload, error) {
		g.remember(e) // only what a known key made gets here
		ours, label, err := answer(peer, theirs)
		p.Label = label
		return ours, err
	})
	if err != nil {
		return nil, nil, err
	}
	p.Keys = keys
	p.reply = g.resp(p, msg2)
	g.add(p)
	return p.reply, p, nil
}

// again answers an INIT whose ephemeral key was seen.
func (g *Gate) again(from netip.AddrPort, e [32]byte, f *wire.Init) ([]byte, error) {
	for _, p := range g.pending {
		if p.ephemeral == e && p.From == from && p.Theirs == f.Label && bytes.Equal(p.noise[:], f.Noise[:]) {
			return p.reply, nil
		}
	}
	return nil, ErrReplay
}

// admit bounds the work that INITs cause: below the threshold all pass; above it only those with a cookie, which
// proves their address, up to a ceiling.
func (g *Gate) admit(now time.Duration, from netip.AddrPort, stream bool, b []byte, f *wire.Init) ([]byte, error) {
	if g.load.Allow(now) {
		return nil, nil
	}
	if stream || g.proven(now, from, b, f) {
		if !g.ceiling.Allow(now) {
			return nil, ErrBusy
		}
		return nil, nil
	}
	return g.cookie(now, from, f), ErrBusy
}

func (g *Gate) proven(now time.Duration, from netip.AddrPort, b []byte, f *wire.Init) bool {
	g.rotate(now)
	for _, secret := range [][32]byte{g.secret, g.previous} {
		c := cookieFor(secret, from)
		if equal(mac(c[:], 16, b[:wire.InitMAC2]), f.MAC2[:]) {
			return true
		}
	}
	return false
}

// cookie makes a COOKIE, at most ten a second for each bucket of addresses: one flood of forged addresses
// leaves most honest ones their answer, and no table grows.
func (g *Gate) cookie(now time.Duration, from netip.AddrPort, f *wire.Init) []byte {
	a := from.Addr().As16()
	if !g.cookies[siphash.Hash(g.bucketKey[0], g.bucketKey[1], a[:])%cookieBuckets].Allow(now) {
		return nil
	}
	g.rotate(now)
	out := wire.Cookie{Yours: f.Label}
	aead, err := chacha20poly1305.NewX(g.keys.cookie[:])
	if err != nil {
		return nil
	}
	if _, err := io.ReadFull(g.random, out.Nonce[:]); err != nil {
		return nil
	}
	c := cookieFor(g.secret, from)
	aead.Seal(out.Sealed[:0], out.Nonce[:], c[:], f.MAC1[:])
	return out.Append(nil)
}

// rotate changes the secret each two minutes; the one before is still good for as long.
func (g *Gate) rotate(now time.Duration) {
	if now-g.rotated < CookieLife {
		return
	}
	next := [32]byte{}
	if _, err := io.ReadFull(g.random, next[:]); err != nil {
		return // keep the old one
	}
	g.previous, g.secret, g.rotated = g.secret, next, now
}

func (g *Gate) resp(p *Pending, msg2 []byte) []byte {
	f := wire.Resp{Label: p.Label, Yours: p.Theirs}
	copy(f.Noise[:], msg2)
	b := f.Append(make([]byte, 0, wire.RespLen))
	sum := g.keys.sum(b[:wire.RespMAC1])
	copy(b[wire.RespMAC1:], sum[:])
	return b
}

// add keeps p; a peer's fifth pending handshake puts out its first.
func (g *Gate) add(p *Pending) {
	count, oldest := 0, -1
	for i, q := range g.pending {
		if q.Keys.Peer == p.Keys.Peer {
			if count++; oldest < 0 {
				oldest = i
			}
		}
	}
	if count >= MaxPendingPerPeer {
		g.dropped = append(g.dropped, g.pending[oldest])
		g.pending = slices.Delete(g.pending, oldest, oldest+1)
	}
	g.pending = append(g.pending, p)
}

func (g *Gate) remember(e [32]byte) {
	if len(g.order) >= maxSeen {
		delete(g.seen, g.order[0])
		g.order = slices.Delete(g.order, 0, 1)
	}
	g.seen[e] = struct{}{}
	g.order = append(g.order, e)
}

// Pending finds the handshake whose first frame came on our label, nil if there is none.
func (g *Gate) Pending(label uint32) *Pending {
	for _, p := range g.pending {
		if p.Label == label {
			return p
		}
	}
	return nil
}

// Confirm takes the handshake out of the table: a frame opened under its key, the peer is proven.
func (g *Gate) Confirm(label uint32) *Pending {
	for i, p := range g.pending {
		if p.Label == label {
			g.pending = slices.Delete(g.pending, i, i+1)
			return p
		}
	}
	return nil
}

// Expire gives the handshakes that came to nothing, so that their labels can be freed.
func (g *Gate) Expire(now time.Duration) []*Pending {
	g.drop(now)
	out := g.dropped
	g.dropped = nil
	return out
}

func (g *Gate) drop(now time.Duration) {
	n := 0
	for n < len(g.pending) && g.pending[n].until <= now {
		n++
	}
	if n > 0 {
		g.dropped = append(g.dropped, g.pending[:n]...)
		g.pending = slices.Delete(g.pending, 0, n)
	}
}

// Len is the number of pending handshakes.
func (g *Gate) Len() int { return len(g.pending) }

// Who answers a WHO with our key, if the node is open; nil otherwise.
func (g *Gate) Who(now time.Duration, b []byte) []byte {
	f, err := wire.ParseWho(b)
	if err != nil || !g.config.Open || !g.who.Allow(now) {
		return nil
	}
	return wire.IsMe{Random: f.Random, Key: g.config.Identity.Public(), Network: g.config.Network}.Append(nil)
}

// Hint makes the HINT for a labelled frame that could not be placed, at most ten a second; nil otherwise.
func (g *Gate) Hint(now time.Duration, b []byte) []byte {
	if _, err := wire.ParseHeader(b); err != nil || !g.hint.Allow(now) {
		return nil
	}
	return wire.Hint{Echo: [wire.TaggedLen]byte(b)}.Append(nil)
}
