package session

import (
	"fmt"

	"golang.org/x/crypto/curve25519"

	"skywire/mesh/key"
)

// Shared is the secret that only we and peer can compute, for one purpose: BLAKE2s under the Diffie-Hellman secret of both identities
// over the label. It never changes; nothing that must stay secret after a key was stolen may depend on it.
func Shared(id *key.Private, peer key.Public, label string) ([32]byte, error) {
	scalar, point := id.X25519(), peer.X25519()
	defer clear(scalar[:])
	dh, err := curve25519.X25519(scalar[:], point[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("secret shared with %s: %w", peer.Short(), err)
	}
	defer clear(dh)
	return [32]byte(mac(dh, 32, []byte("skywire shared 1 "), []byte(label))), nil
}
