package key

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"log/slog"
)

// Private is an identity's secret. It is used by pointer, can't be compared, and never prints its seed.
type Private struct {
	_      [0]func() // not comparable
	seed   [Size]byte
	public Public
}

// Generate makes a new identity; it repeats until the public key has sign bit 0 (two tries on average).
func Generate() (*Private, error) {
	for {
		var seed [Size]byte
		if _, err := rand.Read(seed[:]); err != nil {
			return nil, fmt.Errorf("generate key: %w", err)
		}
		if k, err := FromSeed(seed); err == nil {
			return k, nil
		}
	}
}

// FromSeed is the identity of a seed; ErrSeed if the seed's public key has sign bit 1.
func FromSeed(seed [Size]byte) (*Private, error) {
	k := &Private{seed: seed}
	k.public = Public(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if !k.public.wellFormed() {
		return nil, ErrSeed
	}
	return k, nil
}

// Public is the identity itself.
func (k *Private) Public() Public { return k.public }

// Seed is the secret; for storing it, and for nothing else.
func (k *Private) Seed() [Size]byte { return k.seed }

// X25519 is the Diffie-Hellman secret: the clamped first half of SHA-512(seed), the same scalar as Ed25519's.
func (k *Private) X25519() [32]byte {
	h := sha512.Sum512(k.seed[:])
	x := [32]byte(h[:32])
	x[0] &= 248
	x[31] = x[31]&127 | 64
	clear(h[:])
	return x
}

// Sign signs body for one kind of statement in one network.
func (k *Private) Sign(kind string, id NetworkID, body []byte) [64]byte {
	return [64]byte(ed25519.Sign(k.TLS(), signed(kind, id, body)))
}

// TLS is the key in the form crypto/tls wants, for the certificate of the QUIC connections between nodes. TLS
// brings its own context string, so its signatures can't be mistaken for statements.
func (k *Private) TLS() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.seed[:]) }

// String shows the public key's short form.
func (k *Private) String() string {
	if k == nil {
		return "private key (none)"
	}
	return "private key of " + k.public.Short()
}

// Format writes String for every verb, so that no verb reaches the seed.
func (k *Private) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue keeps the seed out of logs.
func (k *Private) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText refuses: a private key leaves only through Seed.
func (k *Private) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("%s is not written as text", k)
}

func signed(kind string, id NetworkID, body []byte) []byte {
	b := make([]byte, 0, len("skywire  1")+len(kind)+1+len(id)+len(body))
	b = append(b, "skywire "...)
	b = append(b, kind...)
	b = append(b, " 1\x00"...)
	b = append(b, id[:]...)
	return append(b, body...)
}
