package prekeys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

const start = int64(1_800_000_000)

func open(t *testing.T, path string) *Ring {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func turn(t *testing.T, r *Ring, now int64, want bool) {
	t.Helper()
	if news, err := r.Turn(now); err != nil || news != want {
		t.Fatalf("Turn at day %d: %v, %v, want %v", (now-start)/day, news, err, want)
	}
}

func newest(t *testing.T, r *Ring) envelope.Prekey {
	t.Helper()
	all, err := r.Public()
	if err != nil || len(all) != 2 || all[0].Suite != envelope.SuiteX25519 || all[1].Suite != envelope.SuiteHybrid || all[0].ID != all[1].ID {
		t.Fatalf("prekeys: %+v, %v", all, err)
	}
	return all[0]
}

// Of 40 days each has its key, which is held for 14 and then nowhere: not in the ring, not in the file.
func TestSecretsGo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "prekeys")
	r := open(t, path)
	ids := map[int64]uint32{}
	secrets := map[int64][]byte{}
	for d := range int64(40) {
		now := start + d*day
		turn(t, r, now, true)
		turn(t, r, now+day/2, false)
		ids[d] = newest(t, r).ID
		secrets[d] = r.Secret(ids[d]).Append(nil)[20:]
		if d%7 == 3 { // a restart changes nothing
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, path)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for old := range d + 1 {
			held := d-old < 14
			if got := r.Secret(ids[old]) != nil; got != held {
				t.Fatalf("day %d: secret of day %d held: %v", d, old, got)
			}
			if got := bytes.Contains(file, secrets[old]); got != held {
				t.Fatalf("day %d: secret of day %d in the file: %v", d, old, got)
			}
		}
	}
	// 60 days off: nothing of before is left after the first turn.
	turn(t, r, start+100*day, true)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for d, s := range secrets {
		if bytes.Contains(file, s) || r.Secret(ids[d]) != nil {
			t.Errorf("secret of day %d is left", d)
		}
	}
}

func TestClockThatWasWrong(t *testing.T) {
	t.Parallel()
	r := open(t, "")
	turn(t, r, start+3650*day, true)
	far := newest(t, r)
	turn(t, r, start, true) // it was not 2036
	now := newest(t, r)
	if r.Secret(far.ID) != nil || now.NotBefore != start || now.ID <= far.ID {
		t.Errorf("after a clock of 2036: %+v, before %+v", now, far)
	}
	turn(t, r, start-day/2, false)
	turn(t, r, start+day, true)
	if got := r.Next(); got != start+2*day {
		t.Errorf("next turn %d days after the start", (got-start)/day)
	}
}

// A box that lost the file gives no number again: what was sealed for the lost secret is told apart from an altered box.
func TestNumbersAfterALoss(t *testing.T) {
	t.Parallel()
	d := device(t)
	r := open(t, "")
	turn(t, r, start, true)
	p := newest(t, r)
	b := &envelope.Bundle{Account: d.Public(), Device: d.Public(), To: d.Public(), Epoch: 1, Floor: 1, Items: []envelope.Item{{Kind: envelope.KindText, Seq: 1, Time: 1}}}
	raw, err := envelope.Seal(b, d, p, envelope.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := envelope.Open(raw, d.Public(), r.Secret); err != nil {
		t.Fatalf("with the secret: %v", err)
	}
	lost := open(t, "")
	turn(t, lost, start+120, true)
	if _, err := envelope.Open(raw, d.Public(), lost.Secret); !errors.Is(err, envelope.ErrPrekey) {
		t.Errorf("after the loss: %v, want ErrPrekey", err)
	}
}

func device(t *testing.T) *key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
