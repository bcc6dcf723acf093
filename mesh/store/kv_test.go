package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var testKey = [32]byte{1, 2, 3}

func openKV(t *testing.T, path string) *KV {
	t.Helper()
	k, err := OpenKV(path, KVOptions{Key: testKey, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if k.Warning() != nil {
		t.Fatal(k.Warning())
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func put(t *testing.T, k *KV, bucket, key, value string) {
	t.Helper()
	if err := k.Batch(func(tx *KVTx) error { tx.Put(bucket, []byte(key), []byte(value)); return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestKVModel does the same random things to a file, to memory and to a map, and reopens the file now and then.
func TestKVModel(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv")
	f, m := openKV(t, path), openKV(t, "")
	r := rand.New(rand.NewPCG(1, 2))
	model := map[string]map[string]string{"a": {}, "b": {}}
	for round := range 300 {
		err := f.Batch(func(ft *KVTx) error {
			return m.Batch(func(mt *KVTx) error {
				for range 1 + r.IntN(8) {
					b, k := []string{"a", "b"}[r.IntN(2)], fmt.Sprintf("%03d", r.IntN(60))
					if r.IntN(3) == 0 {
						ft.Delete(b, []byte(k))
						mt.Delete(b, []byte(k))
						delete(model[b], k)
						continue
					}
					v := string(bytes.Repeat([]byte{byte(round)}, r.IntN(200)))
					ft.Put(b, []byte(k), []byte(v))
					mt.Put(b, []byte(k), []byte(v))
					model[b][k] = v
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if round%40 == 39 {
			live := f.Live()
			f.Close()
			if f = openKV(t, path); f.Live() != live && f.Live() != live+int64(len(ownBucket)) {
				own := f.Size(ownBucket)
				if f.Live()-own != live-own {
					t.Fatalf("live bytes %d, after opening again %d", live, f.Live())
				}
			}
		}
		for _, k := range []*KV{f, m} {
			for b, want := range model {
				compareKV(t, k, b, want, fmt.Sprintf("%03d", r.IntN(60)), fmt.Sprintf("%03d", r.IntN(60)))
			}
		}
	}
}

func compareKV(t *testing.T, k *KV, bucket string, want map[string]string, from, to string) {
	t.Helper()
	var keys []string
	for x := range want {
		if x >= from && x < to {
			keys = append(keys, x)
		}
	}
	slices.Sort(keys)
	for _, down := range []bool{false, true} {
		var got []string
		each := func(key, v []byte) bool {
			if string(v) != want[string(key)] {
				t.Fatalf("%s is %q, want %q", key, v, want[string(key)])
			}
			got = append(got, string(key))
			return true
		}
		scan := k.Range
		if down {
			scan = k.RangeDown
		}
		if err := scan(bucket, []byte(from), []byte(to), each); err != nil {
			t.Fatal(err)
		}
		if down {
			slices.Reverse(got)
		}
		if !slices.Equal(got, keys) {
			t.Fatalf("%s from %s to %s down %v: %v, want %v", bucket, from, to, down, got, keys)
		}
	}
	for x, v := range want {
		if got := k.Get(bucket, []byte(x)); string(got) != v || got == nil {
			t.Fatalf("%s is %q, want %q", x, got, v)
		}
	}
}

func TestKVSealed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv")
	k := openKV(t, path)
	put(t, k, "b", "1", "a secret that lies sealed")
	put(t, k, "b", "2", "another one")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, []byte("secret that")) {
		t.Fatalf("the value is in the file: %v", err)
	}
	if _, err := OpenKV(path, KVOptions{Key: [32]byte{9}}); !errors.Is(err, ErrKey) {
		t.Fatalf("another key: %v", err)
	}
	// A value moved to another key, by who can write the file, does not open there.
	k = openKV(t, path)
	f := k.shelf.(*file)
	if err := f.apply([]kvOp{{"b", []byte("2"), f.get("b", []byte("1"))}}); err != nil {
		t.Fatal(err)
	}
	if v := k.Get("b", []byte("2")); v != nil || k.Skipped() != 1 {
		t.Errorf("moved value opened: %q, skipped %d", v, k.Skipped())
	}
	if v := k.Get("b", []byte("1")); string(v) != "a secret that lies sealed" {
		t.Errorf("got %q", v)
	}
}

func TestKVCompacts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv")
	k := openKV(t, path)
	big := string(make([]byte, 4000))
	for i := range 300 {
		put(t, k, "b", fmt.Sprint(i), big)
	}
	for i := range 298 {
		if err := k.Batch(func(tx *KVTx) error { tx.Delete("b", []byte(fmt.Sprint(i))); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	k.Close()
	before, _ := os.Stat(path)
	k = openKV(t, path)
	after, _ := os.Stat(path)
	if after.Size() > 2*k.Live()+compactSlack || after.Size() >= before.Size() {
		t.Errorf("%d bytes, before %d, live %d", after.Size(), before.Size(), k.Live())
	}
	if v := k.Get("b", []byte("299")); string(v) != big {
		t.Error("a value was lost")
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is left: %v", err)
	}
}

func TestKVDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv")
	k := openKV(t, path)
	for i := range 100 {
		put(t, k, "b", fmt.Sprint(i), "value")
	}
	k.Close()
	info, _ := os.Stat(path)
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKV(path, KVOptions{Key: testKey})
	if err != nil || !errors.Is(k.Warning(), ErrCorrupt) {
		t.Fatalf("%v, warning %v", err, k.Warning())
	}
	defer k.Close()
	if _, err := os.Stat(path + ".damaged-1"); err != nil {
		t.Error(err)
	}
	put(t, k, "b", "1", "again")
}

func TestKVFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(smallDisk(t), "kv")
	k := openKV(t, path)
	var held int
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		err = k.Batch(func(tx *KVTx) error { tx.Put("b", fmt.Appendf(nil, "%04d", i), make([]byte, 2000)); return nil })
		if err == nil {
			held++
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d: %v", held, err)
	}
	n, live := 0, k.Live()
	if err := k.Range("b", nil, nil, func(_, v []byte) bool { n++; return len(v) == 2000 }); err != nil || n != held {
		t.Errorf("%d of %d entries, %v", n, held, err)
	}
	if err := k.Batch(func(tx *KVTx) error { tx.Delete("b", []byte("0000")); return nil }); err != nil {
		t.Logf("deleting on the full disk: %v", err)
	} else if k.Live() >= live {
		t.Errorf("live %d, before %d", k.Live(), live)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = openKV(t, path)
	if v := k.Get("b", fmt.Appendf(nil, "%04d", held-1)); len(v) != 2000 {
		t.Errorf("the last one is lost: %d bytes", len(v))
	}
}

// writeKVForEver writes batches of three entries that hold the same number, and prints it once it is durable.
func writeKVForEver(path string) int {
	k, err := OpenKV(path, KVOptions{Key: testKey, Timeout: 10 * time.Second})
	if err != nil || k.Warning() != nil {
		fmt.Println("error", err, k.Warning())
		return 1
	}
	var n uint64
	if v := k.Get("b", []byte("0")); len(v) >= 8 {
		n = binary.BigEndian.Uint64(v)
	}
	for err == nil {
		n++
		err = k.Batch(func(tx *KVTx) error {
			for i := range 3 {
				tx.Put("b", []byte{'0' + byte(i)}, append(binary.BigEndian.AppendUint64(nil, n), make([]byte, n%3000)...))
			}
			tx.Delete("c", binary.BigEndian.AppendUint64(nil, n-1))
			tx.Put("c", binary.BigEndian.AppendUint64(nil, n), nil)
			return nil
		})
		fmt.Println(n)
	}
	fmt.Println("error", err)
	return 1
}

// TestKVKilledWriter: what was acknowledged is there, whole.
func TestKVKilledWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv")
	var last uint64
	for round := range 12 {
		acknowledged := killWriter(t, killKVEnv, path, last, round)
		k := openKV(t, path)
		var n []uint64
		for i := range 3 {
			n = append(n, binary.BigEndian.Uint64(k.Get("b", []byte{'0' + byte(i)})))
		}
		if n[0] != n[1] || n[1] != n[2] || n[0] < acknowledged || k.Skipped() != 0 {
			t.Fatalf("round %d: %v, %d was acknowledged", round, n, acknowledged)
		}
		count := 0
		_ = k.Range("c", nil, nil, func(key, _ []byte) bool { count++; return binary.BigEndian.Uint64(key) == n[0] })
		if count != 1 {
			t.Fatalf("round %d: %d entries in c", round, count)
		}
		last = n[0]
		k.Close()
	}
	t.Logf("12 kills, %d batches", last)
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, pass := range []string{"", "correct horse"} {
		path := filepath.Join(dir, "key"+pass)
		a, err := KeyFile(path, pass)
		if err != nil {
			t.Fatal(err)
		}
		b, err := KeyFile(path, pass)
		if err != nil || a != b || a == [32]byte{} {
			t.Fatalf("%x, %x, %v", a, b, err)
		}
		if _, err := KeyFile(path, "wrong"); !errors.Is(err, ErrKey) {
			t.Errorf("wrong passphrase: %v", err)
		}
		raw, _ := os.ReadFile(path)
		if pass != "" && bytes.Contains(raw, a[:]) {
			t.Error("the key lies open")
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
	}
}

// TestSmallErases: nothing of what was before is in the file, nor in a crash between its two writes is all lost.
func TestSmallErases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "small")
	s, err := OpenSmall(path)
	if err != nil || s.Read() != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := s.Write(fmt.Appendf(nil, "secret number %d", i)); err != nil {
			t.Fatal(err)
		}
		raw, _ := os.ReadFile(path)
		for j := range i {
			if bytes.Contains(raw, fmt.Appendf(nil, "number %d", j)) {
				t.Fatalf("secret %d is still in the file after %d", j, i)
			}
		}
	}
	s.Close()
	raw, _ := os.ReadFile(path)
	for cut := range 2 { // either slot half written
		torn := bytes.Clone(raw)
		for i := range 100 {
			torn[cut*smallSlot+i] ^= 0x55
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSmall(path)
		if err != nil || string(s.Read()) != "secret number 4" {
			t.Fatalf("slot %d torn: %q, %v", cut, s.Read(), err)
		}
		s.Close()
	}
	if err := os.WriteFile(path, make([]byte, 2*smallSlot), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSmall(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("both torn: %v", err)
	}
}
