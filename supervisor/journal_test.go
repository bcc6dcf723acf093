package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log", "1.lines")
	r := NewRing(4000)
	if from := r.restore(openJournal(path, 4000)); from != (offsets{}) {
		t.Errorf("a new one begins at %+v", from)
	}
	for i := range 1000 {
		stream := streamOut
		if i%2 == 1 {
			stream = streamErr
		}
		r.add([]record{{line: Line{Time: time.Unix(0, int64(i)), Stream: stream, Text: fmt.Sprint(" line ", i)}, off: int64(10 * i)}})
	}
	r.Add(time.Unix(5, 0), streamNote, "a note\nin two lines")
	want, next := r.Last(-1)
	r.close(false)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("1002 77 o 9999 cut o") // a kill in the middle
	f.Close()

	r = NewRing(4000)
	from := r.restore(openJournal(path, 4000))
	got, again := r.Last(-1)
	if !slices.EqualFunc(got, want, func(a, b Line) bool {
		return a.Seq == b.Seq && a.Text == b.Text && a.Stream == b.Stream && a.Time.Equal(b.Time)
	}) || again != next {
		t.Errorf("got %d lines to %d, want %d to %d", len(got), again, len(want), next)
	}
	if from != (offsets{9980, 9990}) {
		t.Errorf("offsets %+v", from)
	}
	r.Add(time.Unix(6, 0), streamNote, "after")
	r.close(false)
	r = NewRing(4000)
	r.restore(openJournal(path, 4000))
	if got, _ := r.Last(1); len(got) != 1 || got[0].Text != "after" || got[0].Seq != next {
		t.Errorf("%+v", got)
	}
	for _, p := range []string{path, path + ".0"} {
		if st, err := os.Stat(p); err != nil || st.Size() > 2*4000 {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	r.close(true)
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("1 1700000000000000000 o 17 text with  blanks\n")
	f.Add("0 0 E 4 \n")
	f.Add("9 -1 v 0 x\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRecord([]byte(text))
		if err != nil {
			return
		}
		again, err := parseRecord(appendRecord(nil, r))
		if err != nil || again != r {
			t.Errorf("%+v, %v after %+v", again, err, r)
		}
	})
}

// TestGate: a flood is held back and counted, and a lighter level is not kept.
func TestGate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	r := NewRing(1 << 20)
	g := newGate(clock, gateRules{rate: 10})
	s := newSink(outlet{r, g, newTap(nil)}, streamOut, clock)
	write := func(n int) {
		for range n {
			s.Write([]byte("x\n"))
		}
	}
	write(100)
	now = now.Add(time.Second)
	write(15)
	now = now.Add(time.Minute)
	write(15)
	write(100)
	s.flush()
	var kept int
	told := 0
	lines, _ := r.Last(-1)
	for _, l := range lines {
		if l.Stream == streamNote {
			var n int
			fmt.Sscan(l.Text, &n)
			told += n
		} else {
			kept++
		}
	}
	if kept != 20+10+20 || told != 230-50 {
		t.Errorf("%d kept, %d suppressed", kept, told)
	}
	g.set(gateRules{level: LevelWarn})
	s.Write([]byte("INFO no\nWARN yes\n"))
	if l, _ := r.Last(1); l[0].Text != "WARN yes" {
		t.Errorf("%+v", l)
	}
}

func TestLevelOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want Level
	}{
		{"hello", LevelInfo},
		{"", LevelInfo},
		{"<3>broken", LevelError},
		{"<7>detail", LevelDebug},
		{"<9>no", LevelInfo},
		{`time=2026-01-01T00:00:00Z level=WARN msg="x"`, LevelWarn},
		{`{"time":"x","level":"error","msg":"y"}`, LevelError},
		{"2026/01/01 DEBUG: tick", LevelDebug},
		{"[WARNING] x", LevelWarn},
		{"an error in lower case is a word", LevelInfo},
		{"level=", LevelInfo},
		{"level=purple", LevelInfo},
	}
	for _, tt := range tests {
		if got := LevelOf(tt.text); got != tt.want {
			t.Errorf("LevelOf(%q) = %v, want %v", tt.text, got, tt.want)
		}
	}
}
