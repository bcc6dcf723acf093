package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolt "go.etcd.io/bbolt/errors"
)

// schema is the version of the layout below. Buckets and their keys:
//
//	meta      schema, boots, number → u64
//	rules     in-base u32           → Rule
//	records   key 32                → record as signed
//	pins      ADDR                  → key 32
//	replay    key 32                → highest u64, window u64
//	counters  CounterKey            → Counters
//	members   ref 9                 → statement as signed
//	offers    invite id 8           → invite of this box's issuer
//	ways      network 8, key 32     → name of a carrier
//
// meta also holds floor → u64 and cluster → key 32.
const schema = 1

var bucketNames = [...]string{meta: "meta", rules: "rules", records: "records", pins: "pins", replay: "replay", counters: "counters", statements: "members", offers: "offers", waysKnown: "ways"}

type bucket int

const (
	meta bucket = iota
	rules
	records
	pins
	replay
	counters
	statements
	offers
	waysKnown
)

// DefaultTimeout is how long Open waits for another process to let go of the file: a restart overlaps a little.
const DefaultTimeout = 3 * time.Second

// Options of Open. The zero value is what a daemon uses.
type Options struct {
	Timeout time.Duration // DefaultTimeout if 0
	NoSync  bool          // tests that make thousands of stores; a power cut may then damage the file
}

// DB is an open store.
type DB struct {
	path    string
	b       *bbolt.DB
	warning error
	skipped atomic.Uint64
	batch   sync.Mutex // held by the one batch that compares and writes
}

// Open opens the file, and makes it and its folder if they are not there. A damaged file is renamed aside, a fresh one
// takes its place, and Warning says so.
func Open(path string, o Options) (*DB, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, classify(err))
	}
	b, err := open(path, o, prepare)
	var warning error
	if errors.Is(err, ErrCorrupt) {
		aside, renameErr := setAside(path)
		if renameErr != nil {
			return nil, fmt.Errorf("open store %s: %w; and it can't be renamed: %w", path, err, renameErr)
		}
		warning = fmt.Errorf("store %s: %w; kept as %s, started afresh", path, err, aside)
		b, err = open(path, o, prepare)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return &DB{path: path, b: b, warning: warning}, nil
}

// Warning is not nil if the file was damaged and had to be replaced.
func (d *DB) Warning() error {
	if d == nil {
		return nil
	}
	return d.warning
}

// Path is where the file lies.
func (d *DB) Path() string {
	if d == nil {
		return ""
	}
	return d.path
}

// Skipped counts values that were left out because they did not parse.
func (d *DB) Skipped() uint64 {
	if d == nil {
		return 0
	}
	return d.skipped.Load()
}

// Close may be called more than once.
func (d *DB) Close() error {
	if d == nil {
		return nil
	}
	return classify(d.b.Close())
}

func open(path string, o Options, prepare func(path string, b *bbolt.DB) error) (b *bbolt.DB, err error) {
	// bbolt trusts its pages: of a file cut short or overwritten it may read behind the end (a fault) or panic, here
	// or at the first read. Both become an error. Its lock and mapping then leak, once per start, with the old file.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: o.Timeout, NoSync: o.NoSync, NoStatistics: true})
	if err != nil {
		return nil, classifyOpen(err)
	}
	if err := prepare(path, b); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// prepare reads all there is, so that damage shows now and not in the middle of the night, and makes missing buckets.
func prepare(path string, b *bbolt.DB) error {
	complete := false
	err := b.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: %d bytes of %d", ErrCorrupt, info.Size(), tx.Size())
		}
		complete = true
		for _, name := range bucketNames {
			bk := tx.Bucket([]byte(name))
			if bk == nil {
				complete = false
				continue
			}
			if err := bk.ForEach(func(_, _ []byte) error { return nil }); err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
		if bk := tx.Bucket([]byte(bucketNames[meta])); bk != nil {
			if v, ok := number(bk.Get([]byte(keySchema))); ok && v > schema {
				return fmt.Errorf("%w: layout %d, this program knows %d", ErrNewer, v, schema)
			}
		}
		return nil
	})
	if err != nil || complete {
		return err
	}
	return classify(b.Update(func(tx *bbolt.Tx) error {
		for _, name := range bucketNames {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketNames[meta])).Put([]byte(keySchema), binary.BigEndian.AppendUint64(nil, schema))
	}))
}

// setAside renames the file to its name and the lowest free number, of which 9 are kept: a box that damages its file at
// each start must not fill its disk.
func setAside(path string) (string, error) {
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.damaged-%d", path, i)
		if _, err := os.Lstat(aside); i == 9 || errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(path, aside)
		}
	}
}

// classifyOpen takes what bbolt says of a file for damage, unless the system refused something: bbolt has sentinels for
// some kinds of damage and plain text for others.
func classifyOpen(err error) error {
	var path *fs.PathError
	var number syscall.Errno
	switch {
	case errors.Is(err, bolt.ErrTimeout):
		return ErrLocked
	case errors.As(err, &path), errors.As(err, &number):
		return classify(err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

func classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Tx gathers the changes of one batch. It belongs to the function that Batch calls.
type Tx struct {
	ops []op
}

type op struct {
	in    bucket
	key   []byte // nil: the whole bucket is emptied
	value []byte // nil: deleted
}

func (t *Tx) put(in bucket, k, v []byte) { t.ops = append(t.ops, op{in, k, v}) }

// Batch calls fn and writes what it put into the Tx: all of it, durably, or nothing and an error. What the file holds
// already is not written again.
func (d *DB) Batch(fn func(*Tx) error) error {
	var t Tx
	if err := fn(&t); err != nil {
		return err
	}
	if len(t.ops) == 0 {
		return nil
	}
	if d == nil {
		return ErrNone
	}
	d.batch.Lock()
	defer d.batch.Unlock()
	var changes map[bucket]map[string][]byte
	err := d.b.View(func(tx *bbolt.Tx) error {
		changes = t.changes(tx)
		return nil
	})
	if err != nil || len(changes) == 0 {
		return wrap(d.path, err)
	}
	return wrap(d.path, d.b.Update(func(tx *bbolt.Tx) error {
		for in, keys := range changes {
			bk := tx.Bucket([]byte(bucketNames[in]))
			for k, v := range keys {
				var err error
				if v == nil {
					err = bk.Delete([]byte(k))
				} else {
					err = bk.Put([]byte(k), v)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

func wrap(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write store %s: %w", path, classify(err))
}

// changes reduces the operations to keys whose value differs from what the file holds; nil is a deletion.
func (t *Tx) changes(tx *bbolt.Tx) map[bucket]map[string][]byte {
	last := make(map[bucket]map[string][]byte)
	for _, o := range t.ops {
		keys := last[o.in]
		if keys == nil {
			keys = make(map[string][]byte)
			last[o.in] = keys
		}
		if o.key != nil {
			keys[string(o.key)] = o.value
			continue
		}
		clear(keys)
		c := tx.Bucket([]byte(bucketNames[o.in])).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			keys[string(k)] = nil
		}
	}
	for in, keys := range last {
		bk := tx.Bucket([]byte(bucketNames[in]))
		for k, v := range keys {
			if held := bk.Get([]byte(k)); (held == nil) == (v == nil) && bytes.Equal(held, v) {
				delete(keys, k)
			}
		}
		if len(keys) == 0 {
			delete(last, in)
		}
	}
	return last
}

// each calls fn with every key and value of a bucket; both are valid during the call only. What fn does not accept is
// counted as skipped.
func (d *DB) each(in bucket, fn func(k, v []byte) bool) error {
	if d == nil {
		return ErrNone
	}
	err := d.b.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketNames[in])).ForEach(func(k, v []byte) error {
			if !fn(k, v) {
				d.skipped.Add(1)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read store %s: %w", d.path, err)
	}
	return nil
}
