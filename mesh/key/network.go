package key

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/blake2s"
)

// NetworkID separates meshes: it stands in every handshake and under every signature.
type NetworkID [8]byte

// Open is the id of the network that anyone may join.
func Open() NetworkID {
	h := blake2s.Sum256([]byte("open"))
	return NetworkID(h[:8])
}

// Cluster is the id of the network of one cluster key.
func Cluster(k Public) NetworkID {
	h := blake2s.Sum256(k[:])
	return NetworkID(h[:8])
}

// Prefix is the network's RFC 4193 /48: fd, then the first 40 bits of the id.
func (id NetworkID) Prefix() netip.Prefix {
	var a [16]byte
	id.fill(&a)
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// Address is k's mesh address: the prefix and 80 bits of BLAKE2s("skywire address 1", id, k).
func (id NetworkID) Address(k Public) netip.Addr {
	b := append([]byte("skywire address 1"), id[:]...)
	h := blake2s.Sum256(append(b, k[:]...))
	var a [16]byte
	id.fill(&a)
	copy(a[6:], h[:10])
	return netip.AddrFrom16(a)
}

func (id NetworkID) fill(a *[16]byte) {
	a[0] = 0xfd
	copy(a[1:6], id[:5])
}

// String is the id in hex.
func (id NetworkID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText gives the hex form.
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 16 hex digits.
func (id *NetworkID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("network id of %d letters, want %d", len(b), 2*len(id))
	}
	if _, err := hex.Decode(id[:], b); err != nil {
		return fmt.Errorf("network id: %w", err)
	}
	return nil
}
