package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// KV is a store of named buckets with ordered keys, for an app whose values nobody else shall read: they lie sealed in
// the file. Keys lie open, since their order is what they are for, so a key must tell nothing: numbers, hashes.
//
// Rules: as for DB, a batch is on disk whole or not at all when Batch returns. A value that does not open is as if it
// were not there, and counted. What Get and Range return belongs to the caller. Safe for concurrent use; fn of Range must not
// call the KV.
type KV struct {
	path    string
	warning error
	seal    sealer
	skipped atomic.Uint64
	writes  atomic.Uint64

	mu    sync.RWMutex // guards the fields below, and makes batches one at a time
	shelf shelf
	sizes map[string]int64 // live bytes of a bucket
}

// KVOptions of OpenKV.
type KVOptions struct {
	Key     [32]byte // seals the values, see KeyFile; no use for one without a path
	Timeout time.Duration
	NoSync  bool
}

// shelf is where the sealed values lie: a file or memory.
type shelf interface {
	get(bucket string, key []byte) []byte
	scan(bucket string, from, to []byte, down bool, fn func(k, v []byte) bool) error
	apply(ops []kvOp) error
	buckets() []string
	close() error
}

type kvOp struct {
	bucket string
	key    []byte
	value  []byte // nil: deleted
}

// A file is rewritten at its opening when more than half of it, and of more than slack, holds nothing.
const compactSlack = 128 << 10

// OpenKV opens the file, which it makes if it is not there, or memory if path is empty. A damaged file is renamed aside as
// Open does it.
func OpenKV(path string, o KVOptions) (*KV, error) {
	k := &KV{path: path, sizes: map[string]int64{}}
	if path == "" {
		k.shelf = newMemory()
		return k, nil
	}
	var err error
	if k.seal, err = newSealer(o.Key); err != nil {
		return nil, err
	}
	if k.shelf, k.warning, err = openFile(path, Options{Timeout: o.Timeout, NoSync: o.NoSync}); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := k.check(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), k.shelf.close())
	}
	if err := k.measure(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), k.shelf.close())
	}
	if err := k.compact(o); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return k, nil
}

// The bucket of the KV's own, and the key of the value whose opening proves the key.
const (
	ownBucket = "kv"
	proofKey  = "proof"
)

// check tells a wrong key from damage by a value that the first opening wrote.
func (k *KV) check() error {
	if v := k.shelf.get(ownBucket, []byte(proofKey)); v != nil {
		if _, ok := k.seal.open(ownBucket, []byte(proofKey), v); !ok {
			return ErrKey
		}
		return nil
	}
	v := k.seal.seal(ownBucket, []byte(proofKey), nil)
	return classify(k.shelf.apply([]kvOp{{ownBucket, []byte(proofKey), v}}))
}

// measure reads all lengths; so the account of live bytes needs no place in the file and can't go wrong by a crash.
func (k *KV) measure() error {
	for _, b := range k.shelf.buckets() {
		var sum int64
		err := k.shelf.scan(b, nil, nil, false, func(key, v []byte) bool {
			sum += int64(len(key) + len(v) + 16)
			return true
		})
		if err != nil {
			return err
		}
		k.sizes[b] = sum
	}
	return nil
}

// compact rewrites a file that is mostly empty pages. bbolt never gives pages back, and what was deleted stays in them.
func (k *KV) compact(o KVOptions) error {
	info, err := os.Stat(k.path)
	if err != nil || info.Size() <= 2*k.Live()+compactSlack {
		return nil
	}
	f := k.shelf.(*file)
	shelf, err := f.rewrite(Options{Timeout: o.Timeout, NoSync: o.NoSync})
	if shelf != nil {
		k.shelf = shelf
	}
	return err
}

// KVTx gathers the changes of one batch. Keys and values must stay unchanged until Batch returns.
type KVTx struct {
	ops []kvOp
}

// Put sets a value.
func (t *KVTx) Put(bucket string, key, value []byte) {
	t.ops = append(t.ops, kvOp{bucket, key, nonNil(value)})
}

// Delete removes a value, if it is there.
func (t *KVTx) Delete(bucket string, key []byte) { t.ops = append(t.ops, kvOp{bucket, key, nil}) }

// Batch calls fn and writes what it put: all of it, durably, or nothing and an error.
func (k *KV) Batch(fn func(*KVTx) error) error {
	var t KVTx
	if err := fn(&t); err != nil || len(t.ops) == 0 {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shelf == nil {
		return ErrNone
	}
	grow := map[string]int64{}
	held := map[string]int{} // sizes of entries within this batch, by bucket and key
	for i := range t.ops {
		o := &t.ops[i]
		id := o.bucket + "\x00" + string(o.key)
		was, ok := held[id]
		if !ok {
			if v := k.shelf.get(o.bucket, o.key); v != nil {
				was = len(o.key) + len(v) + 16
			}
		}
		is := 0
		if o.value != nil {
			if k.path != "" {
				o.value = k.seal.seal(o.bucket, o.key, o.value)
			} else {
				o.value = bytes.Clone(o.value)
			}
			is = len(o.key) + len(o.value) + 16
		}
		held[id] = is
		grow[o.bucket] += int64(is - was)
	}
	if err := k.shelf.apply(t.ops); err != nil {
		return wrap(k.path, err)
	}
	k.writes.Add(1)
	for b, n := range grow {
		k.sizes[b] += n
	}
	return nil
}

// Get returns a value, nil if there is none.
func (k *KV) Get(bucket string, key []byte) []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.shelf == nil {
		return nil
	}
	v := k.shelf.get(bucket, key)
	if v == nil {
		return nil
	}
	return k.plain(bucket, key, v)
}

func (k *KV) plain(bucket string, key, v []byte) []byte {
	if k.path == "" {
		return append([]byte{}, v...)
	}
	p, ok := k.seal.open(bucket, key, v)
	if !ok {
		k.skipped.Add(1)
		return nil
	}
	return nonNil(p)
}

// Range calls fn with the entries from from up to but without to, in the order of their keys, until it returns false.
// nil means the first key, or no end.
func (k *KV) Range(bucket string, from, to []byte, fn func(key, value []byte) bool) error {
	return k.scan(bucket, from, to, false, fn)
}

// RangeDown is Range from the last entry to the first.
func (k *KV) RangeDown(bucket string, from, to []byte, fn func(key, value []byte) bool) error {
	return k.scan(bucket, from, to, true, fn)
}

func (k *KV) scan(bucket string, from, to []byte, down bool, fn func(key, value []byte) bool) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.shelf == nil {
		return ErrNone
	}
	err := k.shelf.scan(bucket, from, to, down, func(key, v []byte) bool {
		p := k.plain(bucket, key, v)
		return p == nil || fn(bytes.Clone(key), p)
	})
	if err != nil {
		return fmt.Errorf("read store %s: %w", k.path, err)
	}
	return nil
}

// Size is the live bytes of one bucket: keys and values with what sealing and indexing add.
func (k *KV) Size(bucket string) int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.sizes[bucket]
}

// Live is the live bytes of all buckets.
func (k *KV) Live() (n int64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, s := range k.sizes {
		n += s
	}
	return n
}

// Writes counts the batches written since the opening.
func (k *KV) Writes() uint64 { return k.writes.Load() }

// Skipped counts values that did not open.
func (k *KV) Skipped() uint64 { return k.skipped.Load() }

// Warning is not nil if the file was damaged and had to be replaced.
func (k *KV) Warning() error { return k.warning }

// Path is where the file lies; empty for memory.
func (k *KV) Path() string { return k.path }

// Close may be called more than once.
func (k *KV) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shelf == nil {
		return nil
	}
	s := k.shelf
	k.shelf = nil
	return classify(s.close())
}

// file is a shelf in bbolt.
type file struct {
	path string
	b    *bbolt.DB
}

// openFile opens the file, or sets a damaged one aside and begins another.
func openFile(path string, o Options) (shelf, error, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if err := mkParent(path); err != nil {
		return nil, nil, err
	}
	b, err := open(path, o, readAll)
	var warning error
	if errors.Is(err, ErrCorrupt) {
		aside, renameErr := setAside(path)
		if renameErr != nil {
			return nil, nil, fmt.Errorf("%w; and it can't be renamed: %w", err, renameErr)
		}
		warning = fmt.Errorf("store %s: %w; kept as %s, started afresh", path, err, aside)
		b, err = open(path, o, readAll)
	}
	if err != nil {
		return nil, nil, err
	}
	return &file{path: path, b: b}, warning, nil
}

// readAll reads every page, so that damage shows at the start.
func readAll(path string, b *bbolt.DB) error {
	return b.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: %d bytes of %d", ErrCorrupt, info.Size(), tx.Size())
		}
		err = tx.ForEach(func(_ []byte, bk *bbolt.Bucket) error {
			return bk.ForEach(func(_, _ []byte) error { return nil })
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil
	})
}
