package messenger

import (
	"bytes"
	"sort"

	"skywire/mesh/store"
)

// ledger is the store as the engine's state machine sees it: what it puts is there at once to read, and on disk after commit.
// Two layers lie over the store: staged, and flying, which is being written. The owner's lock guards it, but for write.
type ledger struct {
	kv     *store.KV
	staged layer
	flying layer
	grown  int64 // bytes that staged and flying add, at most
}

// layer holds values by bucket and key; nil: deleted.
type layer map[string]map[string][]byte

func newLedger(kv *store.KV) *ledger { return &ledger{kv: kv, staged: layer{}} }

func (l layer) get(bucket, key string) ([]byte, bool) {
	v, ok := l[bucket][key]
	return v, ok
}

func (l *ledger) put(bucket string, key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	l.set(bucket, key, value)
	l.grown += int64(len(key) + len(value) + 64)
}

func (l *ledger) delete(bucket string, key []byte) { l.set(bucket, key, nil) }

func (l *ledger) set(bucket string, key, value []byte) {
	m := l.staged[bucket]
	if m == nil {
		m = map[string][]byte{}
		l.staged[bucket] = m
	}
	m[string(key)] = value
}

// get returns a value that the caller must not change; nil if there is none.
func (l *ledger) get(bucket string, key []byte) []byte {
	for _, layer := range []layer{l.staged, l.flying} {
		if v, ok := layer.get(bucket, string(key)); ok {
			return v
		}
	}
	return l.kv.Get(bucket, key)
}

type entry struct {
	key, value []byte
}

// list returns up to limit entries from from up to but without to, in order, or in reverse order from the end.
func (l *ledger) list(bucket string, from, to []byte, limit int, down bool) []entry {
	over := map[string][]byte{}
	deleted := 0
	for _, layer := range []layer{l.flying, l.staged} {
		for k, v := range layer[bucket] {
			if k >= string(from) && (to == nil || k < string(to)) {
				over[k] = v
			}
		}
	}
	for _, v := range over {
		if v == nil {
			deleted++
		}
	}
	var all []entry
	each := func(k, v []byte) bool {
		if _, there := over[string(k)]; !there {
			all = append(all, entry{k, v})
		}
		return len(all) < limit
	}
	if down {
		_ = l.kv.RangeDown(bucket, from, to, each)
	} else {
		_ = l.kv.Range(bucket, from, to, each)
	}
	if len(over) == deleted {
		return all
	}
	for k, v := range over {
		if v != nil {
			all = append(all, entry{[]byte(k), v})
		}
	}
	sort.Slice(all, func(i, j int) bool { return (bytes.Compare(all[i].key, all[j].key) < 0) != down })
	if len(all) > limit {
		all = all[:limit]
	}
	return all
}

// dirty tells whether something is staged.
func (l *ledger) dirty() bool { return len(l.staged) > 0 }

// fly takes what is staged to be written; nil if there is nothing, or something flies already.
func (l *ledger) fly() layer {
	if l.flying != nil || len(l.staged) == 0 {
		return nil
	}
	l.flying, l.staged = l.staged, layer{}
	return l.flying
}

// write puts a layer on disk. It needs no lock: nobody changes a layer that flies.
func (l *ledger) write(f layer) error {
	return l.kv.Batch(func(tx *store.KVTx) error {
		for b, m := range f {
			for k, v := range m {
				if v == nil {
					tx.Delete(b, []byte(k))
				} else {
					tx.Put(b, []byte(k), v)
				}
			}
		}
		return nil
	})
}

// landed forgets what was written; or, after a failure, all that was not.
func (l *ledger) landed(err error) {
	l.flying = nil
	if err != nil {
		l.staged = layer{}
	}
	l.grown = 0
}

// live is about how many bytes the store holds, with what is on its way.
func (l *ledger) live() int64 { return l.kv.Live() + l.grown }
