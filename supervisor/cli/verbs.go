package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"skywire/signal"
	"skywire/supervisor"
	"skywire/supervisor/config"
)

type obj map[string]any

func apps(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var list []supervisor.AppInfo
	if err := s.call(ctx, "viscript.apps", nil, &list, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(list)
	}
	if len(list) == 0 {
		s.talk("no apps are configured; add them under apps: in config.yaml, then: reload")
	}
	t := s.table()
	for _, a := range list {
		t.row(a.Name, a.Desc)
	}
	return t.Flush()
}

func help(ctx context.Context, s *session, f *flags) error {
	words, err := f.parse(0, 1, false)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		PrintVerbs(tabwriter.NewWriter(s.out, 2, 8, 2, ' ', 0), s.inShell)
		return nil
	}
	var a supervisor.AppInfo
	if err := s.call(ctx, "viscript.help", obj{"app": words[0]}, &a, false); err != nil {
		if v := find(words[0]); v != nil && errors.Is(err, signal.ErrNotFound) {
			return s.execute(ctx, []string{v.Name, "--help"})
		}
		return err
	}
	if f.json {
		return s.printJSON(a)
	}
	text := strings.TrimRight(a.Help, "\n ")
	if text == "" {
		text = a.Desc
	}
	fmt.Fprintln(s.out, text)
	return nil
}

// PrintVerbs writes the table of verbs; inShell adds those that only the shell has.
func PrintVerbs(t *tabwriter.Writer, inShell bool) {
	for _, v := range Verbs() {
		if !v.shell || inShell {
			names := strings.Join(append([]string{v.Name}, v.Aliases...), ", ")
			fmt.Fprintf(t, "  %s\t%s\n", strings.TrimSpace(names+" "+v.Args), v.Summary)
		}
	}
	t.Flush()
}

func start(ctx context.Context, s *session, f *flags) error {
	attached := f.Bool("a", false, "attach: bind this terminal to the app; Ctrl-Z detaches")
	words, err := f.parse(1, -1, true)
	if err != nil {
		return err
	}
	var started supervisor.Started
	p := obj{"app": words[0], "args": words[1:], "attach": *attached}
	if err := s.call(ctx, "viscript.start", p, &started, false); err != nil {
		return err
	}
	if *attached {
		s.talk("%s#%d started; Ctrl-Z detaches", words[0], started.ID)
		return s.attached(ctx, started, ctrlZ)
	}
	if f.json {
		return s.printJSON(started)
	}
	fmt.Fprintln(s.out, started.ID)
	return nil
}

func attach(ctx context.Context, s *session, f *flags) error {
	key := f.String("detach-key", "^Z", "the `KEY` that detaches: ^A to ^Z, ^], ^\\, ^_; for apps with a terminal that want Ctrl-Z themselves")
	words, err := f.parse(1, 1, false)
	if err != nil {
		return err
	}
	detach, ok := controlKey(*key)
	if !ok {
		return f.usage(fmt.Sprintf("--detach-key %q is none of ^A to ^Z, ^], ^\\ and ^_", *key))
	}
	var started supervisor.Started
	if err := s.call(ctx, "viscript.attach", obj{"id": words[0]}, &started, false); err != nil {
		return err
	}
	return s.attached(ctx, started, detach)
}

// controlKey reads ^A.
func controlKey(text string) (byte, bool) {
	if len(text) != 2 || text[0] != '^' {
		return 0, false
	}
	c := text[1]
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c & 0x1f, c >= 'A' && c <= '_' && c != '[' && c != '^'
}

func ps(ctx context.Context, s *session, f *flags) error {
	all := f.Bool("a", false, "also apps that have ended")
	full := f.Bool("f", false, "all columns: arguments, reason, what the app says")
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var list []supervisor.Item
	if err := s.call(ctx, "viscript.ps", obj{"all": *all}, &list, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(list)
	}
	t := s.table()
	head := []any{"ID", "NAME", "APP", "STATE", "PID", "UPTIME", "RESTARTS", "CPU", "RSS"}
	if *full {
		head = append(head, "ARGS", "REASON", "STATUS")
	}
	t.row(head...)
	for _, it := range list {
		row := []any{
			it.ID, it.Name, it.App, it.State, opt(it.PID, strconv.Itoa), "-", it.Restarts,
			opt(it.CPUPercent, func(v float64) string { return fmt.Sprintf("%.1f%%", v) }), opt(it.RSS, size),
		}
		if it.PID != nil && it.Started != nil {
			row[5] = uptime(time.Since(*it.Started))
		}
		if *full {
			reason := ""
			if it.ExitReason != nil {
				reason = *it.ExitReason
			}
			row = append(row, quoteAll(it.Args), reason, it.Status)
		}
		t.row(row...)
	}
	return t.Flush()
}

// idsAtOnce is how many apps a verb asks about at the same time: less than a connection takes.
const idsAtOnce = 60

// each runs a verb for every id, several at a time; all are tried, the first error is returned after the others were
// printed. Everything is shown in the order of the ids, as soon as all before it is there.
func each[T any](ctx context.Context, s *session, f *flags, ids []string, one func(id string) (T, error), show func(T)) error {
	if len(ids) > 1 { // once, before several need it
		if _, err := s.connect(ctx); err != nil {
			return err
		}
	}
	type answer struct {
		value T
		err   error
	}
	answers := make([]chan answer, len(ids))
	slots := make(chan struct{}, idsAtOnce)
	for i, id := range ids {
		answers[i] = make(chan answer, 1)
		go func() { // ends with its call, which is waited for below
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := one(id)
			answers[i] <- answer{v, err}
		}()
	}
	results := []T{}
	var first error
	for _, c := range answers {
		a := <-c
		switch {
		case a.err == nil && !f.json:
			show(a.value)
		case a.err == nil:
			results = append(results, a.value)
		case first == nil:
			first = a.err
		default:
			s.report(a.err)
		}
	}
	switch {
	case !f.json || len(results) == 0:
	case len(ids) == 1:
		return s.printJSON(results[0])
	default:
		if err := s.printJSON(results); err != nil {
			return err
		}
	}
	return first
}

func ping(ctx context.Context, s *session, f *flags) error {
	ids, err := f.parse(1, -1, false)
	if err != nil {
		return err
	}
	return each(ctx, s, f, ids, func(id string) (p supervisor.Pong, err error) {
		return p, s.call(ctx, "viscript.ping", obj{"id": id}, &p, false)
	}, func(p supervisor.Pong) {
		fmt.Fprintf(s.out, "%d: %.3f ms, answered by %s\n", p.ID, p.RTT, p.AnsweredBy)
	})
}

func ru(ctx context.Context, s *session, f *flags) error {
	ids, err := f.parse(1, -1, false)
	if err != nil {
		return err
	}
	return each(ctx, s, f, ids, func(id string) (r supervisor.Resources, err error) {
		return r, s.call(ctx, "viscript.ru", obj{"id": id}, &r, false)
	}, s.printResources)
}

func (s *session) printResources(r supervisor.Resources) {
	secs := func(v float64) string { return fmt.Sprintf("%.2f s", v) }
	t := s.table()
	t.row("id", r.ID)
	t.row("pid", r.PID)
	t.row("uptime", uptime(time.Duration(r.Uptime*float64(time.Second))))
	t.row("processes", opt(r.Processes, strconv.Itoa))
	t.row("threads", opt(r.Threads, strconv.Itoa))
	t.row("cpu user", opt(r.CPUUser, secs))
	t.row("cpu system", opt(r.CPUSys, secs))
	t.row("cpu", opt(r.CPUPercent, func(v float64) string { return fmt.Sprintf("%.1f %%", v) }))
	t.row("memory rss", opt(r.RSS, size))
	t.row("memory pss", opt(r.PSS, size))
	t.row("open files", opt(r.FDs, strconv.Itoa))
	t.row("read", opt(r.IORead, size))
	t.row("written", opt(r.IOWrite, size))
	t.row("mesh received", opt(r.NetRx, size))
	t.row("mesh sent", opt(r.NetTx, size))
	t.row("source", r.Source)
	var app map[string]any
	d := json.NewDecoder(bytes.NewReader(r.App))
	d.UseNumber()
	if d.Decode(&app) == nil {
		for _, k := range sortedKeys(app) {
			t.row("app "+k, app[k])
		}
	}
	t.Flush()
}

func stop(ctx context.Context, s *session, f *flags) error {
	timeout := f.Float64("timeout", 0, "`SECONDS` until the app is killed (default: stop_timeout of the app)")
	all := f.Bool("all", false, "all that runs")
	ids, err := f.parse(0, -1, false)
	switch {
	case err != nil:
		return err
	case *all == (len(ids) > 0):
		return f.usage("either IDs or --all")
	case *all:
		if ids, err = s.active(ctx); err != nil {
			return err
		}
	}
	if *timeout < 0 || *timeout > 86400 {
		return f.usage("--timeout takes 0 to 86400 seconds")
	}
	return each(ctx, s, f, ids, func(id string) (it supervisor.Item, err error) {
		p := obj{"id": id, "timeout_ms": int64(*timeout * 1000)}
		if *timeout > 0 && *timeout < 0.001 {
			p["timeout_ms"] = 1
		}
		return it, s.call(ctx, "viscript.stop", p, &it, true)
	}, func(it supervisor.Item) { fmt.Fprintf(s.out, "%s#%d %s\n", it.Name, it.ID, "stopped") })
}

// active are the ids of what runs or will.
func (s *session) active(ctx context.Context) (ids []string, err error) {
	var list []supervisor.Item
	err = s.call(ctx, "viscript.ps", nil, &list, false)
	for _, it := range list {
		ids = append(ids, strconv.FormatUint(it.ID, 10))
	}
	return ids, err
}

func restart(ctx context.Context, s *session, f *flags) error {
	ids, err := f.parse(1, -1, false)
	if err != nil {
		return err
	}
	return each(ctx, s, f, ids, func(id string) (it supervisor.Item, err error) {
		return it, s.call(ctx, "viscript.restart", obj{"id": id}, &it, true)
	}, func(it supervisor.Item) { fmt.Fprintf(s.out, "%s#%d %s\n", it.Name, it.ID, it.State) })
}

func status(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var in supervisor.Info
	if err := s.call(ctx, "viscript.status", nil, &in, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(in)
	}
	t := s.table()
	t.row("pid", in.PID)
	t.row("version", in.Version)
	t.row("uptime", uptime(time.Duration(in.Uptime*float64(time.Second))))
	t.row("config", in.Config)
	t.row("socket", in.Socket)
	t.row("apps", fmt.Sprintf("%d configured, %d running, %d failed", in.Apps, in.Running, in.Failed))
	t.row("last id", in.LastID)
	if !in.LogsKept {
		t.row("logs", "in viscript alone: the run directory is not in RAM, so a kill of viscript loses them")
	}
	for _, l := range in.Lacks {
		t.row("not on this system", l)
	}
	if in.Problem != "" {
		t.row("problem", in.Problem)
	}
	return t.Flush()
}

func reload(ctx context.Context, s *session, f *flags) error {
	dry := f.Bool("dry-run", false, "only say what would change")
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var p supervisor.Plan
	if err := s.call(ctx, "viscript.reload", obj{"dry_run": *dry}, &p, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(p)
	}
	s.printPlan(p)
	return nil
}

func check(ctx context.Context, s *session, f *flags) error {
	words, err := f.parse(1, 2, false)
	if err != nil {
		return err
	}
	if words[0] == "schema" && len(words) == 1 && s.c.Schema != nil {
		return s.printJSON(s.c.Schema())
	}
	if words[0] != "check" {
		return f.usage(fmt.Sprintf("unknown word %q", words[0]))
	}
	path := s.c.File
	if len(words) == 2 {
		path = words[1]
	} else if in := (supervisor.Info{}); s.inShell && s.call(ctx, "viscript.status", nil, &in, false) == nil && in.Config != "" {
		path = in.Config // that of the viscript which this shell talks to
	}
	c, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; name another with --config", err)
	}
	if err == nil {
		err = c.CheckSections(s.c.Sections)
	}
	if err == nil && s.c.Check != nil {
		err = s.c.Check(c)
	}
	if err != nil {
		return err
	}
	if f.json {
		return s.printJSON(obj{"config": c.Path, "apps": len(c.Apps), "ok": true})
	}
	fmt.Fprintf(s.out, "%s: ok, %d apps\n", c.Path, len(c.Apps))
	return nil
}

func clearScreen(_ context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	_, err := fmt.Fprint(s.out, "\x1b[H\x1b[2J")
	return err
}

func leave(_ context.Context, _ *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	return errLeave
}

// metrics prints text for Prometheus: a textfile collector takes it from cron, a box without a web page has it too.
func metrics(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var text string
	if err := s.call(ctx, "viscript.metrics", nil, &text, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(text)
	}
	fmt.Fprint(s.out, text)
	return nil
}

func webPage(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var in supervisor.Invited
	if err := s.call(ctx, "viscript.web", nil, &in, false); err != nil {
		return err
	}
	if f.json {
		return s.printJSON(in)
	}
	fmt.Fprintln(s.out, in.Address)
	return nil
}
