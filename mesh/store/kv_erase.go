package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Small is a file for a few secrets that must be gone when they are deleted: bbolt leaves what was deleted in free pages,
// this one overwrites it. It holds two slots of the same length; a write fills the older one, syncs, then the other, syncs.
// A crash between leaves one whole slot. When Write returns, no byte of what was before is in the file.
//
// A file system that copies on write and the flash below it may keep old blocks; nothing a program does reaches those.
type Small struct {
	f    *os.File
	seq  uint64
	data []byte
}

// smallSlot is the length of a slot: 64 secrets of 200 bytes fit.
const smallSlot = 16 << 10

// slot: sequence 8 │ length 4 │ data │ zeros … │ SHA-256 of all before 32

// OpenSmall opens the file, or makes it. Without path it is memory.
func OpenSmall(path string) (*Small, error) {
	if path == "" {
		return &Small{}, nil
	}
	if err := mkParent(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	s := &Small{f: f}
	b := make([]byte, 2*smallSlot)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	found := false
	for i := range 2 {
		seq, data, ok := parseSlot(b[i*smallSlot : (i+1)*smallSlot])
		if ok && (!found || seq > s.seq) {
			s.seq, s.data, found = seq, data, true
		}
	}
	if !found && n > 0 && n >= smallSlot {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, ErrCorrupt), f.Close())
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func parseSlot(b []byte) (seq uint64, data []byte, ok bool) {
	end := len(b) - sha256.Size
	if sha256.Sum256(b[:end]) != [32]byte(b[end:]) {
		return 0, nil, false
	}
	n := binary.BigEndian.Uint32(b[8:])
	if int(n) > end-12 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(b), append([]byte{}, b[12:12+n]...), true
}

// Read returns what was written last, nil if nothing was.
func (s *Small) Read() []byte { return s.data }

// Write replaces all of it; at most 16,340 bytes.
func (s *Small) Write(data []byte) error {
	if len(data) > smallSlot-12-sha256.Size {
		return fmt.Errorf("%d bytes of secrets: %w", len(data), ErrFull)
	}
	if s.f != nil {
		for range 2 {
			s.seq++
			b := make([]byte, smallSlot-sha256.Size)
			binary.BigEndian.PutUint64(b, s.seq)
			binary.BigEndian.PutUint32(b[8:], uint32(len(data)))
			copy(b[12:], data)
			sum := sha256.Sum256(b)
			if _, err := s.f.WriteAt(append(b, sum[:]...), int64(s.seq%2)*smallSlot); err != nil {
				return classify(err)
			}
			if err := s.f.Sync(); err != nil {
				return classify(err)
			}
		}
	}
	s.data = append([]byte{}, data...)
	return nil
}

// Close may be called more than once.
func (s *Small) Close() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	return f.Close()
}
