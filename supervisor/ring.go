package supervisor

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// maxLogLine cuts lines that never end.
const maxLogLine = 4096

// Line is one line of an app's output.
type Line struct {
	Seq    uint64    `json:"seq"` // counts from 1; a gap means lines that fell out of the ring
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // "stdout", "stderr", or "viscript" for what the supervisor notes
	Text   string    `json:"text"`
}

// Ring holds the last lines of an app in RAM: it never touches flash. Writers never wait for readers.
type Ring struct {
	limit int

	mu    sync.Mutex // guards the fields below
	lines []Line
	bytes int
	next  uint64
	wake  chan struct{} // not nil while somebody waits
}

// lineCost is what a line takes beside its text.
const lineCost = 64

// NewRing returns a Ring of about limit bytes.
func NewRing(limit int) *Ring { return &Ring{limit: limit, next: 1} }

// Add appends a line and drops the oldest above the limit.
func (r *Ring) Add(now time.Time, stream, text string) {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, Line{Seq: r.next, Time: now, Stream: stream, Text: text})
	r.next++
	r.bytes += lineCost + len(text)
	drop := 0
	for r.bytes > r.limit && drop < len(r.lines)-1 {
		r.bytes -= lineCost + len(r.lines[drop].Text)
		r.lines[drop] = Line{}
		drop++
	}
	r.lines = r.lines[drop:]
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// Last returns the newest n lines, all for n < 0, and the cursor behind them.
func (r *Ring) Last(n int) ([]Line, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := 0
	if n >= 0 {
		from = max(0, len(r.lines)-n)
	}
	return append([]Line(nil), r.lines[from:]...), r.next
}

// After returns the lines from cursor on, waiting for one if there is none, and the next cursor; ctx ends the wait.
func (r *Ring) After(ctx context.Context, cursor uint64) ([]Line, uint64, error) {
	for {
		r.mu.Lock()
		if cursor < r.next {
			have := uint64(len(r.lines))
			from := have - min(have, r.next-cursor)
			out := append([]Line(nil), r.lines[from:]...)
			next := r.next
			r.mu.Unlock()
			return out, next, nil
		}
		if r.wake == nil {
			r.wake = make(chan struct{})
		}
		wake := r.wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, cursor, ctx.Err()
		}
	}
}

// splitter cuts a stream into lines for a Ring.
type splitter struct {
	ring   *Ring
	stream string
	now    func() time.Time
	rest   []byte
}

func (s *splitter) write(b []byte) {
	for len(b) > 0 {
		i := 0
		for i < len(b) && b[i] != '\n' {
			i++
		}
		room := maxLogLine - len(s.rest)
		switch {
		case i >= room:
			s.rest = append(s.rest, b[:room]...)
			b = b[room:]
			s.flush()
		case i < len(b):
			s.rest = append(s.rest, b[:i]...)
			b = b[i+1:]
			s.emit()
		default:
			s.rest = append(s.rest, b...)
			return
		}
	}
}

// flush ends a line that has no newline.
func (s *splitter) flush() {
	if len(s.rest) > 0 {
		s.emit()
	}
}

func (s *splitter) emit() {
	s.ring.Add(s.now(), s.stream, strings.TrimSuffix(string(s.rest), "\r"))
	s.rest = s.rest[:0]
}
