package session

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"math/bits"

	"github.com/flynn/noise"
	"golang.org/x/crypto/curve25519"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// Purpose keeps the uses of the handshake apart, so that a message for one is refused by the others.
type Purpose uint8

// The purposes.
const (
	Link    Purpose = 1
	Session Purpose = 2
)

// String is the purpose's word in the prologue.
func (p Purpose) String() string {
	switch p {
	case Link:
		return "link"
	case Session:
		return "session"
	}
	return "unknown"
}

// Config is what one handshake rests on.
type Config struct {
	Identity *key.Private
	Network  key.NetworkID
	Purpose  Purpose
	// Bind is mixed into the prologue: nothing for a new link, SetupCore.Bind for a new session, and on a rekey
	// the Hash of the handshake whose key sealed the first message.
	Bind    []byte
	PSK     [32]byte  // zero unless agreed
	Ciphers Cipher    // what to offer, a sum of bits; 0: ChaCha, and AES with HardwareAES
	Random  io.Reader // nil: crypto/rand; tests give fixed bytes
}

// Validate reports what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Identity == nil:
		return fmt.Errorf("%w: no identity", ErrConfig)
	case c.Purpose != Link && c.Purpose != Session:
		return fmt.Errorf("%w: no purpose", ErrConfig)
	case len(c.Bind) != 0 && len(c.Bind) != 32, c.Purpose == Session && len(c.Bind) == 0:
		return fmt.Errorf("%w: bound to %d bytes", ErrConfig, len(c.Bind))
	case c.offer()&ChaCha == 0, c.offer()&^(ChaCha|AES) != 0:
		return fmt.Errorf("%w: ciphers %#x", ErrConfig, uint8(c.Ciphers))
	}
	return nil
}

func (c *Config) offer() Cipher {
	switch {
	case c.Ciphers != 0:
		return c.Ciphers
	case HardwareAES():
		return ChaCha | AES
	}
	return ChaCha
}

// fill completes a payload of ours.
func (c *Config) fill(p wire.Payload, ciphers Cipher) (wire.Payload, error) {
	if p.Key == 0 {
		return p, fmt.Errorf("%w: key id 0", ErrConfig)
	}
	if p.MinVersion == 0 {
		p.MinVersion = wire.Version
	}
	p.MaxVersion = max(p.MaxVersion, wire.Version)
	p.Ciphers = uint16(ciphers)
	p.Network = c.Network
	return p, nil
}

// prologue is what both ends must agree on before a message decrypts.
func (c *Config) prologue() []byte {
	b := fmt.Appendf(nil, "skywire %d %s", wire.Version, c.Purpose)
	b = append(b, c.Network[:]...)
	return append(b, c.Bind...)
}

func (c *Config) state(initiator bool, peer []byte, random io.Reader) (*noise.HandshakeState, error) {
	x := c.Identity.X25519()
	pub := c.Identity.Public().X25519()
	return noise.NewHandshakeState(noise.Config{
		CipherSuite:           noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		Random:                random,
		Pattern:               noise.HandshakeIK,
		Initiator:             initiator,
		Prologue:              c.prologue(),
		PresharedKey:          c.PSK[:],
		PresharedKeyPlacement: 2,
		StaticKeypair:         noise.DHKey{Private: x[:], Public: pub[:]},
		PeerStatic:            peer,
	})
}

// maxAttempts bounds the wrong answers that one Handshake reads, each of which costs five multiplications.
const maxAttempts = 8

// Handshake is the initiator's side between its two messages.
//
// It is robust against forged answers: the library's state is spoilt by an error, so an answer after a wrong one
// is read by a state rebuilt from the stored ephemeral key, which sends the same first message.
type Handshake struct {
	config    Config
	peer      key.Public
	ours      wire.Payload
	ephemeral [32]byte
	state     *noise.HandshakeState // nil after an error
	attempts  int
}

// Initiate begins a handshake with peer and gives the first message, 160 bytes. Of p, the versions, ciphers and
// network are filled in; Key must be an id of the Ring's, not 0.
func Initiate(c Config, peer key.Public, p wire.Payload) (*Handshake, []byte, error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	if peer == c.Identity.Public() {
		return nil, nil, fmt.Errorf("%w: our own", ErrPeer)
	}
	ours, err := c.fill(p, c.offer())
	if err != nil {
		return nil, nil, err
	}
	c.Bind = bytes.Clone(c.Bind)
	h := &Handshake{config: c, peer: peer, ours: ours}
	random := c.Random
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, h.ephemeral[:]); err != nil {
		return nil, nil, fmt.Errorf("ephemeral key: %w", err)
	}
	msg, err := h.build()
	if err != nil {
		return nil, nil, err
	}
	return h, msg, nil
}

// build makes the state anew; the message is the same each time.
func (h *Handshake) build() ([]byte, error) {
	x := h.peer.X25519()
	if x == [32]byte{} {
		return nil, ErrPeer
	}
	state, err := h.config.state(true, x[:], bytes.NewReader(h.ephemeral[:]))
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	msg, _, _, err := state.WriteMessage(nil, h.ours.Append(nil))
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	h.state = state
	return msg, nil
}

// Peer is whom the handshake is with.
func (h *Handshake) Peer() key.Public { return h.peer }

// Finish reads the answer. After ErrMessage or ErrLowOrder the Handshake still waits for the true answer, up to
// eight wrong ones; after any other error, and after success, it is spent.
func (h *Handshake) Finish(msg2 []byte) (*Keys, error) {
	if h.attempts >= maxAttempts {
		return nil, ErrSpent
	}
	if err := check(msg2, wire.Noise2Len); err != nil {
		return nil, err
	}
	if h.state == nil {
		if _, err := h.build(); err != nil {
			return nil, err
		}
	}
	payload, first, second, err := h.state.ReadMessage(nil, msg2)
	if err != nil {
		h.state = nil
		h.attempts++
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	h.attempts = maxAttempts
	clear(h.ephemeral[:])
	theirs, err := wire.ParsePayload(payload)
	if err != nil {
		return nil, err
	}
	if err := agree(h.ours, theirs); err != nil {
		return nil, err
	}
	choice := Cipher(theirs.Ciphers)
	if bits.OnesCount16(theirs.Ciphers) != 1 || theirs.Ciphers&^h.ours.Ciphers != 0 {
		return nil, ErrCipher
	}
	k := &Keys{Peer: h.peer, Theirs: theirs, Cipher: choice, SendID: theirs.Key, RecvID: h.ours.Key, Initiator: true}
	return h.config.finish(k, h.state, first, second)
}

// Respond answers a first message. Reply is asked once the message has proved its sender's key, though not that
// it is fresh: it may refuse, and must not change anything but a pending entry. Of its payload, versions, ciphers
// and network are filled in.
func Respond(c Config, msg1 []byte, reply func(peer key.Public, p wire.Payload) (wire.Payload, error)) ([]byte, *Keys, error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	if err := check(msg1, wire.Noise1Len); err != nil {
		return nil, nil, err
	}
	state, err := c.state(false, nil, c.Random)
	if err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	payload, _, _, err := state.ReadMessage(nil, msg1)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	k := &Keys{}
	if k.Peer, err = key.FromX25519([32]byte(state.PeerStatic())); err != nil || k.Peer == c.Identity.Public() {
		return nil, nil, ErrPeer
	}
	if k.Theirs, err = wire.ParsePayload(payload); err != nil {
		return nil, nil, err
	}
	if k.Cipher, err = c.choose(Cipher(k.Theirs.Ciphers)); err != nil {
		return nil, nil, err
	}
	ours, err := reply(k.Peer, k.Theirs)
	if err != nil {
		return nil, nil, err
	}
	if ours, err = c.fill(ours, k.Cipher); err != nil {
		return nil, nil, err
	}
	if err := agree(ours, k.Theirs); err != nil {
		return nil, nil, err
	}
	k.SendID, k.RecvID = k.Theirs.Key, ours.Key
	msg2, first, second, err := state.WriteMessage(nil, ours.Append(nil))
	if err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	k, err = c.finish(k, state, first, second)
	return msg2, k, err
}

// choose picks the best common cipher: AES where both CPUs have it.
func (c *Config) choose(theirs Cipher) (Cipher, error) {
	common := theirs & c.offer()
	switch {
	case theirs&ChaCha == 0: // always offered; a peer that doesn't is not ours
		return 0, ErrCipher
	case common&AES != 0:
		return AES, nil
	}
	return ChaCha, nil
}

// agree checks what both payloads state, after they proved authentic.
func agree(ours, theirs wire.Payload) error {
	switch {
	case theirs.Network != ours.Network:
		return fmt.Errorf("%w: network %s", ErrPeer, theirs.Network)
	case theirs.MinVersion > wire.Version || theirs.MaxVersion < wire.Version:
		return fmt.Errorf("%w: speaks %d to %d", ErrVersion, theirs.MinVersion, theirs.MaxVersion)
	case min(ours.MaxVersion, theirs.MaxVersion) > wire.Version:
		return fmt.Errorf("%w: both speak more than %d", ErrVersion, wire.Version)
	case theirs.Key == 0:
		return fmt.Errorf("%w: key id 0", ErrPeer)
	}
	return nil
}

func (c *Config) finish(k *Keys, state *noise.HandshakeState, first, second *noise.CipherState) (*Keys, error) {
	copy(k.Hash[:], state.ChannelBinding())
	copy(k.Bind[:], c.Bind)
	if err := k.split(c.Purpose, first.UnsafeKey(), second.UnsafeKey()); err != nil {
		return nil, err
	}
	return k, nil
}

// check refuses what would spoil the library's state: a wrong length, and an ephemeral key that gives zero.
func check(msg []byte, length int) error {
	if len(msg) != length {
		return fmt.Errorf("%w: %d bytes", ErrMessage, len(msg))
	}
	if lowOrder(msg[:32]) {
		return ErrLowOrder
	}
	return nil
}

// lowOrder reports whether a Diffie-Hellman with e gives zero, by doing one with the scalar that clamps from
// zeros; every clamped scalar is a multiple of 8 and so gives the same verdict.
func lowOrder(e []byte) bool {
	var scalar [32]byte
	_, err := curve25519.X25519(scalar[:], e)
	return err != nil
}
