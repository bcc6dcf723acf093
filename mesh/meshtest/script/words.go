package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"skywire/mesh/meshtest"
)

// words are the words of a line. The first error sticks; what is read after it is zero.
type words struct {
	all  []string
	at   int
	line int
	err  error
}

func (w *words) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
	}
}

func (w *words) more() bool { return w.err == nil && w.at < len(w.all) }

func (w *words) peek() string {
	if !w.more() {
		return ""
	}
	return w.all[w.at]
}

func (w *words) next() string {
	if w.err != nil {
		return ""
	}
	if w.at == len(w.all) {
		w.fail("the line ends too early")
		return ""
	}
	w.at++
	return w.all[w.at-1]
}

// is takes the next word if it is this one.
func (w *words) is(word string) bool {
	if w.peek() != word {
		return false
	}
	w.at++
	return true
}

// rest takes all words that are left.
func (w *words) rest() string {
	s := strings.Join(w.all[w.at:], " ")
	w.at = len(w.all)
	return s
}

func (w *words) end() error {
	if w.more() {
		w.fail("%q is one word too many", w.peek())
	}
	return w.err
}

func (w *words) duration(most time.Duration) time.Duration {
	s := w.next()
	if w.err != nil {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > most {
		w.fail("%q is no time from 0 to %v, as 300ms, 5s or 2m", s, most)
		return 0
	}
	return d
}

func (w *words) count(most int) int {
	s := w.next()
	if w.err != nil {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		w.fail("%q is no number from 0 to %d", s, most)
		return 0
	}
	return n
}

func (w *words) share() float64 {
	s := w.next()
	if w.err != nil {
		return 0
	}
	f, ok := share(s)
	if !ok {
		w.fail("%q is no share, as 1%% or 0.01", s)
	}
	return f
}

func share(s string) (float64, bool) {
	digits, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(digits, 64)
	if percent {
		f /= 100
	}
	return f, err == nil && f >= 0 && f <= 1
}

// rate reads bit/s.
func (w *words) rate() uint64 {
	s := w.next()
	if w.err != nil {
		return 0
	}
	digits, unit := strings.TrimRight(s, "kmg"), uint64(1)
	switch strings.TrimPrefix(s, digits) {
	case "":
	case "k":
		unit = 1000
	case "m":
		unit = 1_000_000
	case "g":
		unit = 1_000_000_000
	default:
		unit = 0
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || unit == 0 {
		w.fail("%q is no rate in bit/s, as 512k or 10m", s)
	}
	return n * unit
}

// wire reads what a wire is like, to the end of the line.
func (w *words) wire(x meshtest.Wire) meshtest.Wire {
	for w.more() {
		switch word := w.next(); word {
		case "delay":
			x.Delay = w.duration(time.Minute)
		case "jitter":
			x.Jitter = w.duration(time.Minute)
		case "loss":
			x.Loss = w.share()
		case "reorder":
			x.Reorder = w.share()
		case "duplicate":
			x.Duplicate = w.share()
		case "corrupt":
			x.Corrupt = w.share()
		case "rate":
			x.Rate = w.rate()
		case "mtu":
			x.MTU = w.count(65507)
		default:
			w.fail("%q: a wire has delay, jitter, loss, reorder, duplicate, corrupt, rate, mtu", word)
		}
	}
	return x
}
