package store

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"skywire/mesh/key"
)

const (
	killEnv   = "SKYWIRE_STORE_KILL_TEST"
	killKVEnv = "SKYWIRE_STORE_KILL_KV_TEST"
	killRound = 24
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killEnv); path != "" {
		os.Exit(writeForEver(path))
	}
	if path := os.Getenv(killKVEnv); path != "" {
		os.Exit(writeKVForEver(path))
	}
	os.Exit(m.Run())
}

// writeForEver writes batches that each set every bucket to the next number, and prints each number once it is durable.
func writeForEver(path string) int {
	d, err := Open(path, Options{Timeout: 10 * time.Second})
	if err != nil || d.Warning() != nil {
		fmt.Println("error", err, d.Warning())
		return 1
	}
	n, err := d.Number()
	for err == nil {
		n++
		err = d.Batch(func(tx *Tx) error { putState(tx, n); return nil })
		fmt.Println(n)
	}
	fmt.Println("error", err)
	return 1
}

func putState(tx *Tx, n uint64) {
	var all []Rule
	for i := range uint32(1 + n%40) {
		all = append(all, Rule{InBase: i, OutBase: uint32(n)})
	}
	tx.PutRules(all)
	tx.PutRecord(key.Public{1}, []byte(strconv.FormatUint(n, 10)))
	tx.PutRecord(key.Public{2}, make([]byte, n%4096))
	tx.PutReplay(key.Public{3}, Replay{Highest: n})
	tx.PutCounters(CounterKey{Label: 1}, Counters{RxBytes: n})
	tx.PutNumber(n)
}

func checkState(t *testing.T, d *DB, acknowledged uint64) uint64 {
	t.Helper()
	n, err := d.Number()
	if err != nil || n < acknowledged {
		t.Fatalf("number %d, %v; %d was acknowledged", n, err, acknowledged)
	}
	if n == 0 {
		return 0
	}
	all, err := d.Rules()
	if err != nil || uint64(len(all)) != 1+n%40 {
		t.Fatalf("at %d: %d rules, %v", n, len(all), err)
	}
	for _, r := range all {
		if r.OutBase != uint32(n) {
			t.Fatalf("at %d: a rule of %d", n, r.OutBase)
		}
	}
	raw, err := d.Records()
	if err != nil || len(raw) != 2 || string(raw[0]) != strconv.FormatUint(n, 10) || uint64(len(raw[1])) != n%4096 {
		t.Fatalf("at %d: records %d, %v", n, len(raw), err)
	}
	replays, err := d.Replays()
	if err != nil || replays[key.Public{3}].Highest != n {
		t.Fatalf("at %d: replays %v, %v", n, replays, err)
	}
	counted, err := d.Counters()
	if err != nil || counted[CounterKey{Label: 1}].RxBytes != n || d.Skipped() != 0 {
		t.Fatalf("at %d: counters %v, %v", n, counted, err)
	}
	return n
}

// TestKilledWriter kills a process that writes without pause, again and again at other moments. The file must open
// without a warning and hold exactly the state of one batch, not older than the last that was acknowledged.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	var last uint64
	for round := range killRound {
		acknowledged := killWriter(t, killEnv, path, last, round)
		d, err := Open(path, Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if d.Warning() != nil {
			t.Fatalf("round %d: %v", round, d.Warning())
		}
		last = checkState(t, d, acknowledged)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d batches", killRound, last)
}

// killWriter runs a writer in a process of its own, kills it some time after it has acknowledged some batches, and returns the
// last number that it acknowledged.
func killWriter(t *testing.T, env, path string, last uint64, round int) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	acknowledged := last
	target := last + 1 + uint64(round%5)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Fatalf("round %d: child says %s", round, lines.Text())
		}
		if acknowledged = n; n == target {
			// Somewhere within the next write, at a different place each round.
			time.AfterFunc(time.Duration(round)*137*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait()
	timer.Stop()
	if acknowledged < target {
		t.Fatalf("round %d: child wrote %d of %d in 30 s", round, acknowledged, target)
	}
	return acknowledged
}
