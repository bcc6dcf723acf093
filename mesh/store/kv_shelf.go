package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"go.etcd.io/bbolt"
)

func mkParent(path string) error { return classify(os.MkdirAll(filepath.Dir(path), 0o700)) }

func (f *file) get(bucket string, key []byte) (v []byte) {
	_ = f.b.View(func(tx *bbolt.Tx) error {
		if bk := tx.Bucket([]byte(bucket)); bk != nil {
			v = bytes.Clone(bk.Get(key))
		}
		return nil
	})
	return v
}

func (f *file) scan(bucket string, from, to []byte, down bool, fn func(k, v []byte) bool) error {
	return f.b.View(func(tx *bbolt.Tx) error {
		bk := tx.Bucket([]byte(bucket))
		if bk == nil {
			return nil
		}
		c := bk.Cursor()
		if !down {
			for k, v := c.Seek(from); k != nil && (to == nil || bytes.Compare(k, to) < 0); k, v = c.Next() {
				if !fn(k, v) {
					break
				}
			}
			return nil
		}
		k, v := c.Last()
		if to != nil {
			if k, _ = c.Seek(to); k == nil {
				k, v = c.Last()
			} else {
				k, v = c.Prev()
			}
		}
		for ; k != nil && bytes.Compare(k, from) >= 0; k, v = c.Prev() {
			if !fn(k, v) {
				break
			}
		}
		return nil
	})
}

func (f *file) apply(ops []kvOp) error {
	return f.b.Update(func(tx *bbolt.Tx) error {
		for _, o := range ops {
			bk, err := tx.CreateBucketIfNotExists([]byte(o.bucket))
			if err == nil && o.value == nil {
				err = bk.Delete(o.key)
			} else if err == nil {
				err = bk.Put(o.key, o.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *file) buckets() (names []string) {
	_ = f.b.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			names = append(names, string(name))
			return nil
		})
	})
	return names
}

func (f *file) close() error { return f.b.Close() }

// compactTx is how many bytes one transaction of a rewriting holds in memory.
const compactTx = 256 << 10

// rewrite copies what lives into a new file and puts it in the place of the old one. If that fails, the old file stays as
// it was; the shelf returned is then the old one.
func (f *file) rewrite(o Options) (shelf, error) {
	next := f.path + ".new"
	_ = os.Remove(next) // of a start that was cut short
	dst, err := bbolt.Open(next, 0o600, &bbolt.Options{NoSync: true, NoStatistics: true})
	if err == nil {
		err = errors.Join(bbolt.Compact(dst, f.b, compactTx), dst.Sync(), dst.Close())
	}
	if err != nil {
		_ = os.Remove(next)
		return f, nil // no room to tidy up is no reason not to run
	}
	if err := f.b.Close(); err != nil {
		return nil, err
	}
	if err := os.Rename(next, f.path); err != nil {
		return nil, fmt.Errorf("replace by the rewritten one: %w", classify(err))
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return nil, err
	}
	again, _, err := openFile(f.path, o)
	if err != nil {
		return nil, err
	}
	return again, nil
}

// memory is a shelf without a file.
type memory struct {
	tables map[string]*table
}

type table struct {
	keys   []string // sorted
	values map[string][]byte
}

func newMemory() *memory { return &memory{tables: map[string]*table{}} }

func (m *memory) get(bucket string, key []byte) []byte {
	t := m.tables[bucket]
	if t == nil {
		return nil
	}
	return t.values[string(key)]
}

func (m *memory) scan(bucket string, from, to []byte, down bool, fn func(k, v []byte) bool) error {
	t := m.tables[bucket]
	if t == nil {
		return nil
	}
	lo := sort.SearchStrings(t.keys, string(from))
	hi := len(t.keys)
	if to != nil {
		hi = max(lo, sort.SearchStrings(t.keys, string(to)))
	}
	keys := t.keys[lo:hi]
	for i := range keys {
		k := keys[i]
		if down {
			k = keys[len(keys)-1-i]
		}
		if !fn([]byte(k), t.values[k]) {
			break
		}
	}
	return nil
}

func (m *memory) apply(ops []kvOp) error {
	for _, o := range ops {
		t := m.tables[o.bucket]
		if t == nil {
			t = &table{values: map[string][]byte{}}
			m.tables[o.bucket] = t
		}
		k := string(o.key)
		_, held := t.values[k]
		at, _ := slices.BinarySearchFunc(t.keys, k, cmp.Compare[string])
		switch {
		case o.value != nil && !held:
			t.keys = slices.Insert(t.keys, at, k)
		case o.value == nil && held:
			t.keys = slices.Delete(t.keys, at, at+1)
		}
		if o.value == nil {
			delete(t.values, k)
		} else {
			t.values[k] = o.value
		}
	}
	return nil
}

func (m *memory) buckets() (names []string) {
	for n := range m.tables {
		names = append(names, n)
	}
	return names
}

func (m *memory) close() error { return nil }
