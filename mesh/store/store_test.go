package store

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"skywire/mesh/key"
)

func openTest(t *testing.T, path string) *DB {
	t.Helper()
	d, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// keys gives identities that exist: FromSeed refuses about half of all seeds.
func keys(t testing.TB, n int) []key.Public {
	t.Helper()
	out := make([]key.Public, 0, n)
	for len(out) < n {
		p, err := key.Generate()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p.Public())
	}
	return out
}

func TestValuesComeBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "node.db")
	k := keys(t, 3)
	rule := Rule{InBase: 0x12300001, OutBase: 7, Lanes: 3, Flags: 1, Idle: 300, In: k[0], Out: k[1], Source: k[2], ID: [16]byte{9, 8}}
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Batch(func(tx *Tx) error {
		tx.PutRules([]Rule{rule})
		tx.PutRecord(k[0], []byte("raw"))
		tx.Pin("udp://10.0.0.1:4000", k[1])
		tx.PutReplay(k[2], Replay{Highest: 1 << 40, Window: 3})
		tx.PutCounters(CounterKey{Peer: k[0], Label: 5}, Counters{1, 2, 3, 4})
		tx.PutNumber(77)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for want := range uint64(3) {
		if n, err := d.CountBoot(); n != want+1 || err != nil {
			t.Fatalf("boot %d, %v; want %d", n, err, want+1)
		}
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}

	d = openTest(t, path)
	if got, err := d.Rules(); err != nil || len(got) != 1 || got[0] != rule {
		t.Errorf("rules %+v, %v", got, err)
	}
	if got, err := d.Records(); err != nil || len(got) != 1 || string(got[0]) != "raw" {
		t.Errorf("records %q, %v", got, err)
	}
	if got, err := d.Pins(); err != nil || got["udp://10.0.0.1:4000"] != k[1] {
		t.Errorf("pins %v, %v", got, err)
	}
	if got, err := d.Replays(); err != nil || got[k[2]] != (Replay{1 << 40, 3}) {
		t.Errorf("replays %v, %v", got, err)
	}
	if got, err := d.Counters(); err != nil || got[CounterKey{k[0], 5}] != (Counters{1, 2, 3, 4}) {
		t.Errorf("counters %v, %v", got, err)
	}
	if n, err := d.Number(); n != 77 || err != nil {
		t.Errorf("number %d, %v", n, err)
	}
	if n, err := d.Boots(); n != 3 || err != nil || d.Skipped() != 0 || d.Warning() != nil {
		t.Errorf("boots %d, %v; skipped %d; warning %v", n, err, d.Skipped(), d.Warning())
	}
}

func TestFailedBatchWritesNothing(t *testing.T) {
	t.Parallel()
	d := openTest(t, filepath.Join(t.TempDir(), "x.db"))
	broken := errors.New("no")
	err := d.Batch(func(tx *Tx) error {
		tx.PutNumber(5)
		return broken
	})
	if n, _ := d.Number(); !errors.Is(err, broken) || n != 0 {
		t.Errorf("number %d, %v", n, err)
	}
}

func TestSameValuesAreNotWrittenAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	d := openTest(t, path)
	k := keys(t, 1)[0]
	write := func() {
		t.Helper()
		if err := d.Batch(func(tx *Tx) error {
			tx.PutRecords(map[key.Public][]byte{k: []byte("raw")})
			tx.PutRules([]Rule{{InBase: 1, In: k}})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	write()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write()
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the second batch changed the file (%v)", err)
	}
}

func TestMalformedValuesAreLeftOut(t *testing.T) {
	t.Parallel()
	d := openTest(t, filepath.Join(t.TempDir(), "x.db"))
	k := keys(t, 1)[0]
	err := d.Batch(func(tx *Tx) error {
		tx.PutRule(Rule{InBase: 1, In: k})
		tx.put(rules, []byte{0, 0, 0, 2}, []byte("junk"))
		tx.put(rules, []byte{0, 0, 0, 3}, Rule{InBase: 4}.Append(nil)) // under another label's key
		tx.put(pins, []byte("a"), make([]byte, 32))                    // small order
		tx.put(replay, []byte("short"), []byte{1})
		tx.put(counters, []byte("short"), []byte{1})
		tx.put(records, []byte("short"), []byte{1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Rules()
	if err != nil || len(all) != 1 || all[0].InBase != 1 || d.Skipped() != 2 {
		t.Errorf("rules %v, %v, skipped %d", all, err, d.Skipped())
	}
	p, errP := d.Pins()
	r, errR := d.Replays()
	c, errC := d.Counters()
	raw, errRaw := d.Records()
	if errors.Join(errP, errR, errC, errRaw) != nil || len(p)+len(r)+len(c)+len(raw) != 0 || d.Skipped() != 6 {
		t.Errorf("pins %v replays %v counters %v records %v skipped %d", p, r, c, raw, d.Skipped())
	}
}

func TestSecondProcessIsToldWho(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	openTest(t, path)
	_, err := Open(path, Options{Timeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"cut to a page":  func(b []byte) []byte { return b[:4096] },
		"cut in half":    func(b []byte) []byte { return b[:len(b)/8] },
		"text":           func([]byte) []byte { return []byte("hello, this is no database") },
		"noise":          func(b []byte) []byte { noise(b); return b },
		"noise in pages": func(b []byte) []byte { noise(b[2*4096:]); return b },
		"zeros":          func(b []byte) []byte { clear(b); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			d, err := Open(path, Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			k := keys(t, 1)[0]
			for i := range uint32(200) {
				if err := d.Batch(func(tx *Tx) error { tx.PutRule(Rule{InBase: i, In: k}); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			d = openTest(t, path)
			if !errors.Is(d.Warning(), ErrCorrupt) || !strings.Contains(d.Warning().Error(), path+".damaged-1") {
				t.Errorf("warning: %v", d.Warning())
			}
			if _, err := os.Stat(path + ".damaged-1"); err != nil {
				t.Error(err)
			}
			if all, err := d.Rules(); err != nil || len(all) != 0 {
				t.Errorf("%d rules, %v", len(all), err)
			}
			if err := d.Batch(func(tx *Tx) error { tx.PutNumber(1); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewerLayoutIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.b.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte(keySchema), []byte{0, 0, 0, 0, 0, 0, 0, 9})
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("files %v, %v", left, err)
	}
}

func TestNoStore(t *testing.T) {
	t.Parallel()
	var d *DB
	if err := d.Batch(func(tx *Tx) error { tx.PutNumber(1); return nil }); !errors.Is(err, ErrNone) {
		t.Errorf("batch: %v", err)
	}
	if all, err := d.Rules(); len(all) != 0 || !errors.Is(err, ErrNone) {
		t.Errorf("rules: %v %v", all, err)
	}
	if _, err := d.CountBoot(); !errors.Is(err, ErrNone) {
		t.Errorf("boot: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestModel compares the store with maps over random batches, with the file opened anew now and then.
func TestModel(t *testing.T) {
	t.Parallel()
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ks := keys(t, 8)
	ruleModel, recordModel := map[uint32]Rule{}, map[key.Public]string{}
	counterModel := map[CounterKey]Counters{}
	for round := range 400 {
		rulesNew, recordsNew, countersNew := maps.Clone(ruleModel), maps.Clone(recordModel), maps.Clone(counterModel)
		fail := r.IntN(5) == 0
		err := d.Batch(func(tx *Tx) error {
			for range r.IntN(6) {
				label, k := r.Uint32N(16), ks[r.IntN(len(ks))]
				switch r.IntN(7) {
				case 0, 1:
					rule := Rule{InBase: label, OutBase: r.Uint32(), In: k}
					tx.PutRule(rule)
					rulesNew[label] = rule
				case 2:
					tx.DeleteRule(label)
					delete(rulesNew, label)
				case 3:
					rule := Rule{InBase: label, Out: k}
					tx.PutRules([]Rule{rule})
					clear(rulesNew)
					rulesNew[label] = rule
				case 4:
					raw := make([]byte, r.IntN(3000))
					tx.PutRecord(k, raw)
					recordsNew[k] = string(raw)
				case 5:
					tx.DeleteRecord(k)
					delete(recordsNew, k)
				case 6:
					c := Counters{RxBytes: r.Uint64()}
					tx.PutCounters(CounterKey{k, label}, c)
					countersNew[CounterKey{k, label}] = c
				}
			}
			if fail {
				return errors.New("changed my mind")
			}
			return nil
		})
		if (err != nil) != fail {
			t.Fatalf("round %d: %v", round, err)
		}
		if !fail {
			ruleModel, recordModel, counterModel = rulesNew, recordsNew, countersNew
		}
		if r.IntN(20) == 0 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if d, err = Open(path, Options{NoSync: true}); err != nil {
				t.Fatal(err)
			}
		}
		gotRules, err1 := d.Rules()
		gotRecords, err2 := d.Records()
		gotCounters, err3 := d.Counters()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		want := slices.SortedFunc(maps.Values(ruleModel), func(a, b Rule) int { return int(a.InBase) - int(b.InBase) })
		if !slices.Equal(gotRules, want) || len(gotRecords) != len(recordModel) || !maps.Equal(gotCounters, counterModel) {
			t.Fatalf("seed %d round %d: store and model differ", seed, round)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add(Rule{InBase: 1, OutBase: 2, Lanes: 3, Flags: 4, Idle: 300, ID: [16]byte{1}}.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRule(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("%x encodes as %x", b, r.Append(nil))
		}
	})
}
