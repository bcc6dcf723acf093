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

// Ring holds the last lines of an app in RAM: it never touches flash. Writers never wait for readers. With a journal a
// line is in there before anybody is shown it, so that a number means the same line to the next run.
type Ring struct {
	limit int

	wmu  sync.Mutex // one writer; taken before mu, and held over the write to the journal, which is RAM
	keep *journal   // nil: none

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

// restore fills a new ring with what the journal of an earlier run holds, and keeps it up from now on.
func (r *Ring) restore(j *journal) (from offsets) {
	recs := j.load()
	r.wmu.Lock()
	defer r.wmu.Unlock()
	r.keep = j
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range recs {
		from.mark(rec)
		if rec.line.Seq > 0 {
			r.appendLocked(rec.line)
			r.next = rec.line.Seq + 1
		}
	}
	return from
}

// Add appends a line and drops the oldest above the limit.
func (r *Ring) Add(now time.Time, stream, text string) {
	text = strings.ReplaceAll(text, "\n", " ")
	r.add([]record{{kind: kindNote, line: Line{Time: now, Stream: stream, Text: text}}})
}

// add numbers the lines of recs and appends them. It owns recs.
func (r *Ring) add(recs []record) {
	if len(recs) == 0 {
		return
	}
	r.wmu.Lock()
	defer r.wmu.Unlock()
	r.mu.Lock()
	seq := r.next
	r.mu.Unlock()
	for i := range recs {
		if recs[i].kind == kindMark {
			continue
		}
		if l := &recs[i].line; !utf8.ValidString(l.Text) {
			l.Text = strings.ToValidUTF8(l.Text, "\uFFFD")
		}
		recs[i].line.Seq = seq
		seq++
	}
	if r.keep != nil {
		r.keep.write(recs)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range recs {
		if rec.kind != kindMark {
			r.appendLocked(rec.line)
		}
	}
	r.next = seq
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

func (r *Ring) appendLocked(l Line) {
	r.lines = append(r.lines, l)
	r.bytes += lineCost + len(l.Text)
	drop := 0
	for r.bytes > r.limit && drop < len(r.lines)-1 {
		r.bytes -= lineCost + len(r.lines[drop].Text)
		r.lines[drop] = Line{}
		drop++
	}
	r.lines = r.lines[drop:]
}

// idle gives the journal's descriptor back until somebody writes again.
func (r *Ring) idle() {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	if r.keep != nil {
		r.keep.close(false)
	}
}

// close ends the journal; with forget its files go too.
func (r *Ring) close(forget bool) {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	if r.keep != nil {
		r.keep.close(forget)
		r.keep = nil
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

// From returns the lines from a number on that are still there, at most most of them unless that is 0, and the cursor
// behind them.
func (r *Ring) From(cursor uint64, most int) ([]Line, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cursor >= r.next {
		return nil, r.next
	}
	have := uint64(len(r.lines))
	out := r.lines[have-min(have, r.next-cursor):]
	if most > 0 && len(out) > most {
		out = out[:most]
	}
	next := r.next
	if len(out) > 0 {
		next = out[len(out)-1].Seq + 1
	}
	return append([]Line(nil), out...), next
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
