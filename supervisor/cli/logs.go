package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"skywire/signal"
	"skywire/supervisor"
)

// comeBack is how long a follower waits for a viscript that was killed or is being upgraded.
const comeBack = 30 * time.Second

// retryEvery is how often it asks meanwhile.
const retryEvery = 200 * time.Millisecond

// errGone is returned when the connection to viscript has ended before the answer.
var errGone = signal.Errorf(signal.ErrNotRunning, "viscript ended meanwhile")

func logs(ctx context.Context, s *session, f *flags) error {
	following := f.Bool("f", false, "go on with what comes; Ctrl-C ends")
	n := f.Int("n", -1, "the last `N` lines (default: all that is kept)")
	since := f.String("since", "", "only lines after `T`: a time (2026-01-31T10:00:00Z, 10:00) or so long ago (10m)")
	cursor := f.String("cursor", "", "only lines from number `N` on (seq in --json); the next number is told at the end")
	level := f.String("level", "", "only lines of level `L` or above: debug, info, warn or error")
	words, err := f.parse(1, 1, false)
	if err != nil {
		return err
	}
	p := obj{"id": words[0], "lines": *n, "follow": *following, "level": *level}
	if *since != "" {
		at, err := parseSince(*since, time.Now())
		if err != nil {
			return f.usage(err.Error())
		}
		p["since"] = at.Format(time.RFC3339Nano)
	}
	next := uint64(0)
	if *cursor != "" {
		if next, err = strconv.ParseUint(*cursor, 10, 64); err != nil {
			return f.usage(fmt.Sprintf("--cursor %q is no number", *cursor))
		}
		p["cursor"] = next
	}
	err = lines(ctx, s, f, "viscript.logs", p, *following, func(l supervisor.Line) uint64 { return l.Seq }, func(l supervisor.Line) {
		next = l.Seq + 1
		if f.json {
			return
		}
		if l.Stream == "viscript" {
			fmt.Fprintf(s.out, "[viscript %s] %s\n", l.Time.Local().Format(time.TimeOnly), l.Text)
			return
		}
		fmt.Fprintln(s.out, l.Text)
	})
	if err == nil && *cursor != "" {
		s.talk("next: --cursor %d", next)
	}
	return err
}

// parseSince reads a time, a time of today, or how long ago.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			y, m, d := now.Local().Date()
			return time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, time.Local), nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q is no time such as 10m, 10:00 or 2026-01-31T10:00:00Z", text)
}

func events(ctx context.Context, s *session, f *flags) error {
	following := f.Bool("f", false, "go on with what comes; Ctrl-C ends")
	n := f.Int("n", -1, "the last `N` events (default: all that is kept)")
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	p := obj{"lines": *n, "follow": *following}
	return lines(ctx, s, f, "viscript.events", p, *following, func(e supervisor.Event) uint64 { return e.Seq }, func(e supervisor.Event) {
		if f.json {
			return
		}
		who := ""
		if e.ID != 0 {
			who = fmt.Sprintf(" %s#%d", e.App, e.ID)
		}
		reason := ""
		if e.Reason != "" {
			reason = ": " + e.Reason
		}
		fmt.Fprintf(s.out, "%s%s %s%s\n", e.Time.Local().Format(time.DateTime), who, e.Event, reason)
	})
}

// lines prints lines, and those that come if following; with --json one document, or one line each when following. A
// follower that loses viscript goes on where it was when there is one again.
func lines[T any](ctx context.Context, s *session, f *flags, method string, p obj, following bool, seq func(T) uint64, show func(T)) error {
	if !following {
		list := []T{}
		if err := s.call(ctx, method, p, &list, false); err != nil {
			return err
		}
		for _, l := range list {
			show(l)
		}
		if f.json {
			return s.printJSON(list)
		}
		return nil
	}
	each := func(b json.RawMessage) {
		var l T
		if json.Unmarshal(b, &l) != nil {
			return
		}
		if f.json {
			fmt.Fprintf(s.out, "%s\n", b)
		}
		show(l)
		p["cursor"], p["lines"] = seq(l)+1, -1
	}
	err := s.followed(ctx, method, p, each)
	for errors.Is(err, errGone) && s.again(ctx) {
		err = s.followed(ctx, method, p, each)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// again waits for a viscript to talk to.
func (s *session) again(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, comeBack)
	defer cancel()
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		if _, err := s.connect(ctx); err == nil {
			return true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}

// followed hands on the lines that come until the call ends.
func (s *session) followed(ctx context.Context, method string, p any, each func(json.RawMessage)) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	notes := s.notes
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		err := s.call(ctx, method, p, nil, true)
		_ = conn.Handled(ctx) // what came before the end is in notes then
		ended <- err
	}()
	take := func(r *signal.Request) {
		var raw []json.RawMessage
		if r.Method != "viscript.lines" || json.Unmarshal(r.Params, &raw) != nil {
			return
		}
		for _, b := range raw {
			each(b)
		}
	}
	for {
		select {
		case r := <-notes:
			take(r)
		case err := <-ended:
			for { // what came before the end
				select {
				case r := <-notes:
					take(r)
					continue
				default:
				}
				return err
			}
		}
	}
}
