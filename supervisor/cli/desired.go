package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"skywire/signal"
	"skywire/supervisor"
	"skywire/supervisor/config"
)

// confirmElsewhere is how long another box waits for a confirmation when nothing else is said: a mistake may have cut it
// off.
const confirmElsewhere = 5 * time.Minute

// waitAgain is how often apply --wait asks a box that is away.
const waitAgain = 2 * time.Second

// confirmTries is how often a box that does not answer after a change is asked.
const confirmTries = 10

// apply makes a file the config.yaml of a box.
func apply(ctx context.Context, s *session, f *flags) error {
	dry := f.Bool("dry-run", false, "only say what would change")
	within := f.Duration("confirm-within", -1, "return to what was before unless confirmed within `D` (at most 24h; 0: no way back; default 5m with -n, else 0)")
	wait := f.Duration("wait", 0, "wait up to `D` for a box that is away")
	itself := f.Duration("confirm-after", 0, "confirm when the box answers on a new connection `D` after the change; what cuts it off returns by itself")
	words, err := f.parse(1, 1, false)
	if err != nil {
		return err
	}
	text, err := s.readConfig(words[0])
	if err != nil {
		return err
	}
	if *itself < 0 || *itself > 0 && *within == 0 {
		return f.usage("--confirm-after wants a way back that is confirmed: leave --confirm-within 0 away")
	}
	if *within < 0 {
		*within = 0
		if s.node != "" || *itself > 0 {
			*within = confirmElsewhere
		}
	}
	p := obj{"text": string(text), "confirm_within_ms": within.Milliseconds(), "dry_run": *dry}
	var a supervisor.Applied
	if err := s.waiting(ctx, *wait, func() error { return s.call(ctx, "viscript.apply", p, &a, true) }); err != nil {
		return err
	}
	switch {
	case f.json && a.Confirm > 0 && *itself > 0: // one document, of what came of it
		if err := s.confirmAfter(ctx, *itself); err != nil {
			return err
		}
		a.Confirm = 0
		return s.printJSON(a)
	case f.json:
		return s.printJSON(a)
	}
	s.printPlan(a.Plan)
	if a.Confirm > 0 && *itself > 0 {
		return s.confirmAfter(ctx, *itself)
	}
	if a.Confirm > 0 {
		way := "viscript confirm"
		if s.node != "" {
			way = "viscript -n " + s.node + " confirm"
		}
		s.talk("what was before comes back in %v, unless: %s", time.Duration(a.Confirm*float64(time.Second)), way)
	}
	return nil
}

// confirmAfter confirms a change over a connection that was opened after it: the old one may stand on what the change has
// taken away.
func (s *session) confirmAfter(ctx context.Context, d time.Duration) error {
	s.close()
	s.conn = nil
	if !wait(ctx, d) {
		return ctx.Err()
	}
	err := s.waiting(ctx, confirmTries*waitAgain, func() error {
		var a supervisor.Applied
		return s.call(ctx, "viscript.confirm", nil, &a, false)
	})
	if err != nil {
		return fmt.Errorf("not confirmed, so what was before comes back by itself: %w", err)
	}
	s.talk("confirmed: the new config.yaml stays")
	return nil
}

// readConfig reads a config.yaml, - for what comes in, and looks for mistakes before a box is asked.
func (s *session) readConfig(path string) ([]byte, error) {
	var text []byte
	var err error
	if path == "-" && s.c.Stdin != nil {
		text, err = io.ReadAll(io.LimitReader(s.c.Stdin, config.MaxFile+1))
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	if len(text) > config.MaxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, config.MaxFile)
	}
	if _, err = config.Parse(text); err != nil { // its sections may be those of another version there
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// waiting does f again while the box is away, up to d.
func (s *session) waiting(ctx context.Context, d time.Duration, f func() error) error {
	err := f()
	if d <= 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	t := time.NewTicker(waitAgain)
	defer t.Stop()
	for away(err) {
		select {
		case <-t.C:
			err = f()
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// away reports an error that may pass when the box is there again.
func away(err error) bool {
	if err == nil {
		return false
	}
	var code interface{ ExitCode() int }
	return errors.Is(err, signal.ErrUnreachable) || errors.Is(err, signal.ErrNotRunning) || errors.Is(err, signal.ErrTimeout) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, &code) && code.ExitCode() == 3
}

func confirm(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var a supervisor.Applied
	if err := s.call(ctx, "viscript.confirm", nil, &a, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(a)
	}
	s.talk("confirmed: the new config.yaml stays")
	return nil
}

func rollback(ctx context.Context, s *session, f *flags) error {
	words, err := f.parse(0, 1, false)
	if err != nil {
		return err
	}
	n := 0
	if len(words) == 1 {
		if n, err = strconv.Atoi(words[0]); err != nil || n <= 0 {
			return f.usage(fmt.Sprintf("version %q is no number; see: versions", words[0]))
		}
	}
	var a supervisor.Applied
	if err := s.call(ctx, "viscript.rollback", obj{"version": n}, &a, true); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(a)
	}
	s.printPlan(a.Plan)
	return nil
}

func versions(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var list []supervisor.Version
	if err := s.call(ctx, "viscript.versions", nil, &list, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(list)
	}
	t := s.table()
	for _, v := range list {
		name := strconv.Itoa(v.Number)
		if v.Number == 0 {
			name = "now"
		}
		t.row(name, v.Since.Local().Format(time.DateTime), v.Hash[:12], fmt.Sprintf("%d bytes", v.Bytes))
	}
	return t.Flush()
}

func audit(ctx context.Context, s *session, f *flags) error {
	following := f.Bool("f", false, "go on with what comes; Ctrl-C ends")
	n := f.Int("n", -1, "the last `N` (default: all that is kept)")
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	p := obj{"lines": *n, "follow": *following}
	return lines(ctx, s, f, "viscript.audit", p, *following, func(a supervisor.Asked) uint64 { return a.Seq }, func(a supervisor.Asked) {
		if f.json {
			return
		}
		result := "done"
		if a.Error != "" {
			result = a.Error
		}
		fmt.Fprintf(s.out, "%s %s (%s): %s: %s\n", a.Time.Local().Format(time.DateTime), a.Who, a.Scope, strings.TrimSpace(a.Method+" "+a.What), result)
	})
}

// printPlan says what changes.
func (s *session) printPlan(p supervisor.Plan) {
	changed := false
	for _, part := range []struct {
		what string
		list []string
	}{{"add", p.Added}, {"remove", p.Removed}, {"change", p.Changed}, {"stop", p.Stopped}, {"restart", p.Again}, {"start", p.Started}} {
		for _, name := range part.list {
			fmt.Fprintf(s.out, "%s %s\n", part.what, name)
			changed = true
		}
	}
	if !changed {
		s.talk("nothing changes")
	}
}
