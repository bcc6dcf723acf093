package vpn

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"skywire/mesh/key"
)

// maxTaken bounds how many addresses are asked about for one lease.
const maxTaken = 64

// maxLeases bounds the file and the search for a free address.
const maxLeases = 1 << 16

// leases gives every key an IPv4 address of the pool, the same one each time: its hash, or the next free one. It is not
// safe for concurrent use.
type leases struct {
	path string
	pool netip.Prefix
	self netip.Addr

	byKey  map[key.Public]netip.Addr
	byAddr map[netip.Addr]key.Public
}

// leaseFile is STATE/vpn-leases.json.
type leaseFile struct {
	Pool   netip.Prefix              `json:"pool"`
	Self   netip.Addr                `json:"self"`
	Leases map[key.Public]netip.Addr `json:"leases"`
}

// openLeases reads the file, or starts one; leases of another pool are forgotten. self is this server's own key.
func openLeases(path string, pool netip.Prefix, self key.Public) (*leases, error) {
	l := &leases{path: path, pool: pool, byKey: map[key.Public]netip.Addr{}, byAddr: map[netip.Addr]key.Public{}}
	b, err := os.ReadFile(path)
	var f leaseFile
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read leases: %w", err)
	case json.Unmarshal(b, &f) != nil:
		return nil, fmt.Errorf("leases in %s are damaged: delete the file, clients then get new addresses", path)
	}
	if f.Pool == pool {
		for k, a := range f.Leases {
			if _, taken := l.byAddr[a]; !taken && pool.Contains(a) && len(l.byKey) < maxLeases {
				l.byKey[k], l.byAddr[a] = a, k
			}
		}
	}
	// The server's own address is a lease like any other.
	if l.self, err = l.lease(self, netip.Addr{}, nil); err != nil {
		return nil, err
	}
	return l, nil
}

// lease returns the address of k, a new one after it is on disk: want, that of its certificate, if it lies in the pool; else
// none for which taken is true, which may be nil.
func (l *leases) lease(k key.Public, want netip.Addr, taken func(netip.Addr) bool) (netip.Addr, error) {
	if want.IsValid() && l.pool.Contains(want) && (want != l.self || l.byKey[k] == want) {
		if err := l.assign(k, want); err != nil {
			return netip.Addr{}, err
		}
		return want, nil
	}
	if a, ok := l.byKey[k]; ok && (taken == nil || !taken(a)) {
		return a, nil
	}
	size := uint32(1) << (32 - l.pool.Bits())
	if uint32(len(l.byKey)) >= min(size-2, maxLeases) {
		return netip.Addr{}, fmt.Errorf("%w %s", ErrPoolFull, l.pool)
	}
	h := sha256.Sum256(append([]byte("skywire vpn lease 1\x00"), k[:]...))
	base := binary.BigEndian.Uint32(l.pool.Addr().AsSlice())
	looks := 0
	for at := binary.BigEndian.Uint32(h[:]) % size; looks < maxTaken; at = (at + 1) % size {
		if at == 0 || at == size-1 { // network and broadcast address, in old eyes
			continue
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+at)
		a := netip.AddrFrom4(b)
		if _, leased := l.byAddr[a]; leased {
			continue
		}
		if looks++; taken != nil && taken(a) {
			continue
		}
		if err := l.assign(k, a); err != nil {
			return netip.Addr{}, err
		}
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("%w %s", ErrPoolFull, l.pool)
}

// assign makes a the address of k, and of nobody else.
func (l *leases) assign(k key.Public, a netip.Addr) error {
	old, had := l.byKey[k]
	other, was := l.byAddr[a]
	if had && old == a {
		return nil
	}
	if was {
		delete(l.byKey, other) // it gets another one when it comes again
	}
	if had {
		delete(l.byAddr, old)
	}
	l.byKey[k], l.byAddr[a] = a, k
	err := l.save()
	if err == nil {
		return nil
	}
	delete(l.byKey, k)
	delete(l.byAddr, a)
	if had {
		l.byKey[k], l.byAddr[old] = old, k
	}
	if was {
		l.byKey[other], l.byAddr[a] = a, other
	}
	return err
}

// save replaces the file; after a power cut there is the old one or the new one.
func (l *leases) save() error {
	b, err := json.Marshal(leaseFile{Pool: l.pool, Self: l.self, Leases: l.byKey})
	if err != nil {
		return fmt.Errorf("encode leases: %w", err)
	}
	if err := replaceFile(l.path, b); err != nil {
		return fmt.Errorf("write leases %s: %w", l.path, err)
	}
	return nil
}
