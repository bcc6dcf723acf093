package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// outlet is where the output of an app goes.
type outlet struct {
	ring *Ring
	gate *gate
	tap  *tap
}

// sink takes the output of one stream of an app, as lines into the ring and raw to the tap. It has one writer at a time.
type sink struct {
	mu    sync.Mutex // guards lines
	lines splitter
	tap   *tap
}

func newSink(o outlet, stream string, now func() time.Time) *sink {
	return &sink{lines: splitter{ring: o.ring, gate: o.gate, stream: stream, now: now}, tap: o.tap}
}

// Write never fails.
func (s *sink) Write(b []byte) (int, error) {
	s.take(b, 0)
	return len(b), nil
}

// take is Write for bytes of which counted, all or none, have come through the spool.
func (s *sink) take(b []byte, counted int) {
	s.mu.Lock()
	s.lines.write(b, counted)
	s.mu.Unlock()
	s.tap.write(s.lines.stream, b)
}

// done is the place in the spool before which nothing is needed any more.
func (s *sink) done() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines.off - int64(len(s.lines.rest))
}

func (s *sink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines.flush()
}

// splitter cuts a stream into lines for a Ring.
type splitter struct {
	ring   *Ring
	gate   *gate
	stream string
	now    func() time.Time
	rest   []byte
	off    int64 // place in the spool behind the last byte taken
	batch  []record
}

// write takes b, of which counted bytes (all or none) have come through the spool.
func (s *splitter) write(b []byte, counted int) {
	end := s.off + int64(counted)
	place := func() { // in the spool, of what is left of b
		if s.off = end; counted > 0 {
			s.off -= int64(len(b))
		}
	}
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
			place()
			s.emit()
		case i < len(b):
			s.rest = append(s.rest, b[:i]...)
			b = b[i+1:]
			place()
			s.emit()
		default:
			s.rest = append(s.rest, b...)
			b = nil
		}
	}
	s.off = end
	s.send()
}

// flush ends a line that has no newline.
func (s *splitter) flush() {
	if len(s.rest) > 0 {
		s.emit()
	}
	s.batch = append(s.batch, s.gate.rest(s.now(), true)...)
	s.send()
}

func (s *splitter) emit() {
	text := strings.TrimSuffix(string(s.rest), "\r")
	s.rest = s.rest[:0]
	s.batch = append(s.batch, record{
		kind: kindOutput, line: Line{Time: s.now(), Stream: s.stream, Text: text}, off: s.off,
	})
}

// send hands the lines that may pass to the ring, and tells the journal how far the spool is done with.
func (s *splitter) send() {
	if len(s.batch) == 0 {
		return
	}
	last := s.batch[len(s.batch)-1]
	out := s.gate.pass(s.batch)
	if len(out) == 0 || out[len(out)-1] != last {
		out = append(out, record{kind: kindMark, line: Line{Stream: s.stream}, off: last.off})
	}
	s.ring.add(out)
	s.batch = nil
}

// gate holds back lines of an app: those below a level, and those above a rate, which it counts. The two streams of an
// app share it.
type gate struct {
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	rules   gateRules
	room    float64 // lines that may pass at once
	filled  time.Time
	dropped uint64
	said    time.Time // when the number was last told
}

// gateRules are what config.yaml says.
type gateRules struct {
	rate  float64 // lines a second; 0: no limit
	level Level   // lines of less weight are dropped
}

// burst is how many seconds of the rate may come at once.
const burst = 2

// tellEvery is how often a flood is told of.
const tellEvery = time.Second

func newGate(now func() time.Time, r gateRules) *gate {
	return &gate{now: now, rules: r, room: burst * r.rate, filled: now()}
}

func (g *gate) set(r gateRules) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules, g.room = r, burst*r.rate
}

// pass returns those of recs that may pass, and notes of how many did not. It may reuse recs.
func (g *gate) pass(recs []record) []record {
	if g == nil {
		return recs
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rules.rate > 0 {
		now := g.now()
		g.room = min(burst*g.rules.rate, g.room+g.rules.rate*now.Sub(g.filled).Seconds())
		g.filled = now
	}
	out := recs[:0]
	for _, r := range recs {
		switch {
		case r.kind != kindOutput:
		case g.rules.level > LevelDebug && LevelOf(r.line.Text) < g.rules.level:
			continue
		case g.rules.rate > 0 && g.room < 1:
			g.dropped++
			continue
		default:
			g.room--
		}
		out = append(out, r)
	}
	return append(out, g.restLocked(g.now(), false)...)
}

// rest tells how many lines were dropped since it was last told, if any and if it is time or the end.
func (g *gate) rest(now time.Time, end bool) []record {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.restLocked(now, end)
}

func (g *gate) restLocked(now time.Time, end bool) []record {
	if g.dropped == 0 || !end && now.Sub(g.said) < tellEvery {
		return nil
	}
	text := fmt.Sprintf("%d lines suppressed, the app writes more than %.0f a second", g.dropped, g.rules.rate)
	g.dropped, g.said = 0, now
	return []record{{kind: kindNote, line: Line{Time: now, Stream: streamNote, Text: text}}}
}

// spooled takes the output of r through the spool, first what is in there from a place on. It returns nil when r has
// ended, and otherwise what keeps the spool from going on: then r still holds what follows.
func (s *sink) spooled(sp *proc.Spool, buf []byte, from int64, r *os.File) error {
	s.lines.off = from
	for {
		for from < sp.Size() {
			n, err := sp.ReadAt(buf[:min(int64(len(buf)), sp.Size()-from)], from)
			if n == 0 {
				return err
			}
			from += int64(n)
			s.take(buf[:n], n)
		}
		sp.Forget(s.done())
		n, err := sp.Fill(r)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed), n == 0 && err == nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// rulesOf are the rules of an app's log.
func rulesOf(a *config.App) gateRules {
	r := gateRules{}
	if a.Log.Rate != nil {
		r.rate = *a.Log.Rate
	}
	r.level, _ = ParseLevel(a.Log.Level)
	if a.Log.Level == "" {
		r.level = LevelDebug
	}
	return r
}
