package messenger

import "skywire/mesh/store"

// KVShelf is a Shelf in a store: a write is on disk when it returns.
func KVShelf(kv *store.KV) Shelf { return kvShelf{kv} }

type kvShelf struct{ kv *store.KV }

func (s kvShelf) Put(bucket string, k, v []byte) error {
	return s.kv.Batch(func(t *store.KVTx) error {
		t.Put(bucket, k, v)
		return nil
	})
}

func (s kvShelf) Get(bucket string, k []byte) ([]byte, error) { return s.kv.Get(bucket, k), nil }

func (s kvShelf) Delete(bucket string, k []byte) error {
	return s.kv.Batch(func(t *store.KVTx) error {
		t.Delete(bucket, k)
		return nil
	})
}

func (s kvShelf) Range(bucket string, from []byte, f func(k, v []byte) bool) error {
	return s.kv.Range(bucket, from, nil, f)
}
