package lan

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
)

// A beacon, big-endian. It is never shorter than the INIT that it may cause (200 bytes), so that nobody amplifies with it.
//
//	0    1      17        19      20
//	| ver | random | port | count | tag 0 (16) | tag 1 | … | hidden key (32) | zeros up to 208
//
// With count 0 it is for a whole network: one tag and the sender's key, hidden from who does not know the network id.
// With count n it is for n nodes that the sender lists: a tag each, which only that node can make out, and no key.
const (
	beaconVersion = 1
	headLen       = 20
	tagLen        = 16
	// MinBeacon and MaxBeacon are the least and the most bytes of a beacon.
	MinBeacon = 208
	MaxBeacon = headLen + MaxFriends*tagLen
	// MaxFriends is how many nodes one beacon is for: as many as a node may have links.
	MaxFriends = 64
)

// Beacon is what a node says on its LAN.
type Beacon struct {
	Random [16]byte
	Port   uint16       // where it takes handshakes
	Tags   [][16]byte   // for single nodes; none: for the network
	Tag    [tagLen]byte // for the network
	Hidden [key.Size]byte
}

// Append encodes b.
func (b Beacon) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, beaconVersion)
	dst = append(dst, b.Random[:]...)
	dst = binary.BigEndian.AppendUint16(dst, b.Port)
	dst = append(dst, uint8(len(b.Tags)))
	for _, t := range b.Tags {
		dst = append(dst, t[:]...)
	}
	if len(b.Tags) == 0 {
		dst = append(dst, b.Tag[:]...)
		dst = append(dst, b.Hidden[:]...)
	}
	return append(dst, make([]byte, max(0, MinBeacon-(len(dst)-start)))...)
}

// ParseBeacon decodes a beacon; what it says is unproven.
func ParseBeacon(b []byte) (Beacon, error) {
	if len(b) < MinBeacon || len(b) > MaxBeacon {
		return Beacon{}, fmt.Errorf("beacon of %d bytes: %w", len(b), ErrMalformed)
	}
	if b[0] != beaconVersion {
		return Beacon{}, fmt.Errorf("beacon of version %d: %w", b[0], ErrMalformed)
	}
	f := Beacon{Random: [16]byte(b[1:]), Port: binary.BigEndian.Uint16(b[17:])}
	count, rest := int(b[19]), b[headLen:]
	if count > MaxFriends || count*tagLen > len(rest) || f.Port == 0 {
		return Beacon{}, fmt.Errorf("beacon for %d nodes, port %d: %w", count, f.Port, ErrMalformed)
	}
	for range count {
		f.Tags = append(f.Tags, [tagLen]byte(rest))
		rest = rest[tagLen:]
	}
	if count == 0 {
		f.Tag, f.Hidden = [tagLen]byte(rest), [key.Size]byte(rest[tagLen:])
		rest = rest[tagLen+key.Size:]
	}
	for _, x := range rest {
		if x != 0 {
			return Beacon{}, fmt.Errorf("beacon with a tail: %w", ErrMalformed)
		}
	}
	return f, nil
}

// Friend is a node for which a beacon may be, with the secret that it and we share.
type Friend struct {
	Key    key.Public
	Secret [32]byte
}

// forNetwork fills a beacon for all that know the network.
func (b *Beacon) forNetwork(id key.NetworkID, self key.Public) {
	b.Hidden = self
	b.hide(id)
	b.Tag = b.networkTag(id)
}

// forFriends fills a beacon for single nodes. Their order says nothing.
func (b *Beacon) forFriends(self key.Public, friends []Friend) {
	for _, f := range friends[:min(len(friends), MaxFriends)] {
		b.Tags = append(b.Tags, b.friendTag(self, f.Secret))
	}
	sort.Slice(b.Tags, func(i, j int) bool { return bytes.Compare(b.Tags[i][:], b.Tags[j][:]) < 0 })
}

// sender is the key of who sent the beacon, if it is for us.
func (b *Beacon) sender(id key.NetworkID, friends []Friend) (key.Public, bool) {
	if len(b.Tags) == 0 {
		tag := b.networkTag(id)
		if subtle.ConstantTimeCompare(tag[:], b.Tag[:]) == 0 {
			return key.Public{}, false
		}
		open := *b
		open.hide(id)
		k, err := key.FromBytes(open.Hidden[:])
		return k, err == nil
	}
	for _, f := range friends {
		tag := b.friendTag(f.Key, f.Secret)
		for _, t := range b.Tags {
			if subtle.ConstantTimeCompare(tag[:], t[:]) == 1 {
				return f.Key, true
			}
		}
	}
	return key.Public{}, false
}

// hide covers the key, or uncovers it: with a pad that the network id and this beacon's random number give.
func (b *Beacon) hide(id key.NetworkID) {
	pad := mac(id[:], 32, "skywire lan 1 pad", b.Random[:])
	subtle.XORBytes(b.Hidden[:], b.Hidden[:], pad)
}

func (b *Beacon) networkTag(id key.NetworkID) [tagLen]byte {
	return [tagLen]byte(mac(id[:], tagLen, "skywire lan 1 net", b.Random[:], b.portBytes(), b.Hidden[:]))
}

func (b *Beacon) friendTag(sender key.Public, secret [32]byte) [tagLen]byte {
	return [tagLen]byte(mac(secret[:], tagLen, "skywire lan 1 node", sender[:], b.Random[:], b.portBytes()))
}

func (b *Beacon) portBytes() []byte { return binary.BigEndian.AppendUint16(nil, b.Port) }

func mac(k []byte, size int, label string, parts ...[]byte) []byte {
	h, err := blake2s.New256(k)
	if err != nil {
		panic("lan: blake2s: " + err.Error())
	}
	_, _ = h.Write([]byte(label))
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	return h.Sum(nil)[:size]
}

// onLink reports whether an address can only be that of a neighbour on the interface with these prefixes.
func onLink(a netip.Addr, prefixes []netip.Prefix) bool {
	if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
		return false
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range prefixes {
		if p.Bits() < p.Addr().BitLen() && p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}
