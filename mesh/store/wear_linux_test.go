package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"skywire/mesh/key"
)

// hourly bounds what a busy node may write to flash in an hour: 64 blocks of 64 KiB. Where 8 MB are free for settings, each block is
// then written twice a day, and it bears 100,000 times.
const hourly = 4 << 20

// written is how many bytes this process has handed to write calls.
func written(t *testing.T) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err) // a kernel without task accounting
	}
	var read int64
	if _, err := fmt.Sscanf(string(b), "rchar: %d\nwchar: %d", &read, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWear counts what is written in an hour of a node's batches, one a minute: nothing while nothing changes, and within bounds where
// 20 neighbours' counters, the numbers of 20 sources and a part of 200 records change each minute. It is not parallel: it counts the process.
func TestWear(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "node.db"), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	record := func(i, version int) []byte {
		raw := make([]byte, 400)
		raw[0], raw[1] = byte(i), byte(version)
		return raw
	}
	batch := func(minute int, traffic, news bool) {
		t.Helper()
		if err := d.Batch(func(tx *Tx) error {
			version := 0
			if news {
				tx.PutNumber(uint64(minute))
				version = minute
			}
			if traffic {
				for i := range 20 {
					tx.PutCounters(CounterKey{Peer: key.Public{byte(i)}}, Counters{RxBytes: uint64(minute), TxBytes: uint64(minute)})
					tx.PutReplay(key.Public{byte(i)}, Replay{Highest: uint64(minute)})
				}
			}
			for i := range 200 {
				v := 0
				if version > i%30 { // each half an hour a new one
					v = 1 + (version-i%30)/30
				}
				tx.PutRecord(key.Public{1, byte(i)}, record(i, v))
			}
			var rules []Rule
			for i := range 50 {
				rules = append(rules, Rule{InBase: uint32(i), Lanes: 1, ID: [16]byte{byte(i)}})
			}
			tx.PutRules(rules)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	batch(0, true, true)
	hour := func(traffic, news bool) int64 {
		before := written(t)
		for minute := 1; minute <= 60; minute++ {
			batch(minute, traffic, news)
		}
		return written(t) - before
	}
	busy := hour(true, true)
	t.Logf("a busy hour writes %d kB", busy/1000)
	if busy > hourly || busy < 60*4096 { // fewer than a page a batch would be a fault of the counting
		t.Errorf("a busy hour writes %d bytes, want at most %d", busy, hourly)
	}
	batch(60, false, false)
	if n := hour(false, false); n > 100 {
		t.Errorf("an hour in which nothing changes writes %d bytes", n)
	}
}
