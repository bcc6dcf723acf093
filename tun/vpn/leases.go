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
	"path/filepath"

	"skywire/mesh/key"
)

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
	if l.self, err = l.lease(self); err != nil {
		return nil, err
	}
	return l, nil
}

// lease returns the address of k, a new one after it is on disk.
func (l *leases) lease(k key.Public) (netip.Addr, error) {
	if a, ok := l.byKey[k]; ok {
		return a, nil
	}
	size := uint32(1) << (32 - l.pool.Bits())
	if uint32(len(l.byKey)) >= min(size-2, maxLeases) {
		return netip.Addr{}, fmt.Errorf("%w %s", ErrPoolFull, l.pool)
	}
	h := sha256.Sum256(append([]byte("skywire vpn lease 1\x00"), k[:]...))
	base := binary.BigEndian.Uint32(l.pool.Addr().AsSlice())
	for at := binary.BigEndian.Uint32(h[:]) % size; ; at = (at + 1) % size {
		if at == 0 || at == size-1 { // network and broadcast address, in old eyes
			continue
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+at)
		a := netip.AddrFrom4(b)
		if _, taken := l.byAddr[a]; taken {
			continue
		}
		l.byKey[k], l.byAddr[a] = a, k
		if err := l.save(); err != nil {
			delete(l.byKey, k)
			delete(l.byAddr, a)
			return netip.Addr{}, err
		}
		return a, nil
	}
}

// save replaces the file; after a power cut there is the old one or the new one.
func (l *leases) save() error {
	b, err := json.Marshal(leaseFile{Pool: l.pool, Self: l.self, Leases: l.byKey})
	if err != nil {
		return fmt.Errorf("encode leases: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ".vpn-leases-*")
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		return fmt.Errorf("write leases %s: %w", l.path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
