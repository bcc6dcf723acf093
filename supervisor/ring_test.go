package supervisor

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRing(t *testing.T) {
	t.Parallel()
	r := NewRing(10 * (lineCost + 10))
	now := time.Unix(0, 0)
	for i := range 1000 {
		r.Add(now, "stdout", fmt.Sprintf("%010d", i))
	}
	lines, next := r.Last(-1)
	if len(lines) != 10 || next != 1001 || lines[0].Seq != 991 || lines[9].Text != "0000000999" {
		t.Errorf("%d lines, next %d: %+v", len(lines), next, lines)
	}
	if lines, _ := r.Last(3); len(lines) != 3 || lines[0].Seq != 998 {
		t.Errorf("last three: %+v", lines)
	}
	r.Add(now, "stdout", strings.Repeat("x", 100000)) // longer than all: kept alone
	if lines, _ := r.Last(-1); len(lines) != 1 {
		t.Errorf("%d lines", len(lines))
	}
	r.Add(now, "stdout", "\xff\xfe")
	if lines, _ := r.Last(1); lines[0].Text != "\uFFFD" {
		t.Errorf("%q", lines[0].Text)
	}
}

// TestRingFollow: a follower gets every line once, or sees the gap in the numbers.
func TestRingFollow(t *testing.T) {
	t.Parallel()
	r := NewRing(1 << 20)
	go func() {
		for i := range 500 {
			r.Add(time.Now(), "stdout", fmt.Sprint(i))
		}
	}()
	_, cursor := r.Last(0)
	cursor = min(cursor, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for want := uint64(1); want <= 500; {
		lines, next, err := r.After(ctx, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Seq != want {
				t.Fatalf("line %d, want %d", l.Seq, want)
			}
			want++
		}
		cursor = next
	}
	cancel()
	if _, _, err := r.After(ctx, cursor); err == nil {
		t.Error("a wait that was given up has no error")
	}
}

func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"), 2)
	f.Add([]byte(strings.Repeat("x", 3*maxLogLine)+"\n"), 4096)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		if step < 1 {
			step = 1
		}
		r := NewRing(1 << 30)
		s := splitter{ring: r, stream: "stdout", now: time.Now}
		for i := 0; i < len(b); i += step {
			n := min(len(b), i+step) - i
			s.write(b[i:i+n], n)
		}
		s.flush()
		if s.off != int64(len(b)) {
			t.Errorf("place %d after %d bytes", s.off, len(b))
		}
		lines, _ := r.Last(-1)
		var n int
		for _, l := range lines {
			n += len(l.Text)
			if len(l.Text) > 3*maxLogLine {
				t.Errorf("a line of %d bytes", len(l.Text))
			}
		}
		if whole := strings.ToValidUTF8(string(b), ""); n == 0 && strings.Trim(whole, "\r\n") != "" {
			t.Error("everything was lost")
		}
	})
}
