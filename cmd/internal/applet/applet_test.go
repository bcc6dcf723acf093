package applet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
)

func testEnv(args ...string) (e *Env, out, talk *bytes.Buffer) {
	out, talk = new(bytes.Buffer), new(bytes.Buffer)
	return &Env{Args: args, Environ: []string{"HOME=/h"}, Stdout: out, Stderr: talk}, out, talk
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		p       place
		environ []string
		want    [3]string
	}{
		{"root", place{root: true}, nil, [3]string{"/etc/skywire/config.yaml", "/var/lib/skywire", "/run/skywire"}},
		{"openwrt", place{root: true, openwrt: true}, nil, [3]string{"/etc/skywire/config.yaml", "/etc/skywire", "/var/run/skywire"}},
		{
			"user",
			place{uid: 7, temp: "/tmp"},
			[]string{"HOME=/h", "XDG_STATE_HOME=/s", "XDG_RUNTIME_DIR=/r"},
			[3]string{"/h/.config/skywire/config.yaml", "/s/skywire", "/r/skywire"},
		},
		{
			"bare user",
			place{uid: 7, temp: "/tmp"},
			[]string{"HOME=/h", "XDG_STATE_HOME=relative"},
			[3]string{"/h/.config/skywire/config.yaml", "/h/.local/state/skywire", "/tmp/skywire-7"},
		},
	} {
		var got [3]string
		got[0], got[1], got[2] = c.p.defaults(&Env{Environ: c.environ})
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  string
		words string
		count int
		json  bool
		err   string
	}{
		{"a", "a", 3, false, ""},
		{"-c 5 a b", "a b", 5, false, ""},
		{"a -c 5 b --json", "a b", 5, true, ""},
		{"a -- -c 5", "a -c 5", 3, false, ""},
		{"--json -- -- x", "-- x", 3, true, ""},
		{"", "", 0, false, "too few arguments"},
		{"a --cuont 4", "", 0, false, "unknown flag --cuont"},
		{"a --jsn", "", 0, false, "unknown flag --jsn, did you mean --json?"},
		{"a -c x", "", 0, false, `invalid value "x" for flag -c: parse error`},
		{"a --log-level loud", "", 0, false, `invalid value "loud"`},
		{"a b c d e", "", 0, false, `unexpected argument "e"`},
	} {
		e, _, _ := testEnv(strings.Fields(c.args)...)
		f := NewFlags(e, "node ping", "NODE [-c N]", "")
		n := f.Int("c", 3, "")
		words, err := f.Parse(1, 4)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || Code(err) != BadUsage || !errors.Is(err, ErrUsage) {
				t.Errorf("%q: %v, want %s", c.args, err, c.err)
			}
			continue
		}
		if err != nil || strings.Join(words, " ") != c.words || *n != c.count || f.JSON != c.json {
			t.Errorf("%q: %v %d %v %v", c.args, words, *n, f.JSON, err)
		}
	}
}

func TestEnvironmentAndFlags(t *testing.T) {
	t.Parallel()
	e, _, _ := testEnv("--state", "/flag")
	e.Environ = []string{"SKYWIRE_STATE=/env", "SKYWIRE_RUN=/old", "SKYWIRE_RUN=/env-run", "SKYWIRE_LOG_LEVEL=debug"}
	f := NewFlags(e, "node run", "", "")
	if _, err := f.Parse(0, 0); err != nil {
		t.Fatal(err)
	}
	if f.State != "/flag" || f.Run != "/env-run" || f.LogLevel.String() != "DEBUG" {
		t.Errorf("%+v", f.Common)
	}
}

func TestHelpAndErrors(t *testing.T) {
	t.Parallel()
	e, out, talk := testEnv("--help")
	f := NewFlags(e, "node ping", "NODE [-c N]", "Pings.")
	f.Int("c", 3, "how `N` often")
	_, err := f.Parse(1, 1)
	if code := f.Exit(err); code != 0 || talk.Len() > 0 || !strings.HasPrefix(out.String(), "usage: node ping NODE [-c N]\n\nPings.\n\nflags:\n  -c N  how N often (default 3)\n\ncommon flags:\n") {
		t.Errorf("%d %q %q", code, out, talk)
	}
	e, out, talk = testEnv()
	f = NewFlags(e, "node ping", "NODE", "")
	_, err = f.Parse(1, 1)
	if code := f.Exit(err); code != 2 || out.Len() > 0 || talk.String() != "node: too few arguments\nusage: node ping NODE\nsee: node ping --help\n" {
		t.Errorf("%d %q %q", code, out, talk)
	}
	talk.Reset()
	if code := f.Exit(WithCode(NotFound, fmt.Errorf("no node x"))); code != 4 || talk.String() != "node: no node x\n" {
		t.Errorf("%d %q", code, talk)
	}
	if code := e.Fail("node", fmt.Errorf("wrapped: %w", WithCode(Refused, fs.ErrPermission))); code != 5 {
		t.Error(code)
	}
}

func TestCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, OK},
		{errors.New("any"), Failed},
		{fmt.Errorf("a: %w", app.ErrNotRunning), NotRunning},
		{signal.Errorf(signal.ErrNotFound, "no node x"), NotFound},
		{fmt.Errorf("a: %w", signal.Errorf(signal.ErrRefused, "closed")), Refused},
		{signal.ErrUnreachable, NotRunning},
		{signal.ErrUsage, BadUsage},
	} {
		if got := Code(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	say := func(word string) Func {
		return func(_ context.Context, e *Env) int {
			fmt.Fprint(e.Stdout, word, e.Args)
			return OK
		}
	}
	c := Command{Name: "node", Summary: "a node", Verbs: []Verb{
		{Name: "run", Run: say("run"), Summary: "the daemon"},
		{Name: "status", Aliases: []string{"st"}, Run: say("status")},
	}}
	old := c
	old.Default, old.DefaultTakes = say("default"), func(args []string) bool { return strings.Contains(args[0], ":") }
	bare := c
	bare.Default = say("bare")
	for _, x := range []struct {
		c    Command
		args string
		out  string
		talk string
		code int
	}{
		{c, "run a --json", "run[a --json]", "", 0},
		{c, "st", "status[]", "", 0},
		{c, "--state /x --json --run=/y run a", "run[--state /x --json --run=/y a]", "", 0},
		{c, "rnu", "", `node: unknown verb "rnu", did you mean "run"?`, 2},
		{c, "zzzzz", "", "node: unknown verb \"zzzzz\"; there are: run status st", 2},
		{c, "", "", "node: which verb?", 2},
		{c, "--help", "node: a node", "", 0},
		{c, "help", "node: a node", "", 0},
		{old, "127.0.0.1:20000 x", "default[127.0.0.1:20000 x]", "", 0},
		{old, "", "", "node: which verb?", 2},
		{bare, "", "bare[]", "", 0},
		{bare, "--unknown", "bare[--unknown]", "", 0},
		{old, "rnu", "", "did you mean", 2},
	} {
		e, out, talk := testEnv(strings.Fields(x.args)...)
		code := x.c.Run(t.Context(), e)
		if code != x.code || !strings.HasPrefix(out.String(), x.out) || !strings.Contains(talk.String(), x.talk) {
			t.Errorf("%q: %d %q %q", x.args, code, out, talk)
		}
	}
	if u := c.Applet().Usage; u != "node run\nnode status" {
		t.Errorf("%q", u)
	}
}

type fakeConfig struct {
	Name   string
	Listen []string
}

type section struct{ text string }

func (s section) Section(_ string, into any) error { return json.Unmarshal([]byte(s.text), into) }

func TestOverlay(t *testing.T) {
	t.Parallel()
	file := func(string) (Sections, error) { return section{`{"Name":"file","Listen":["a","b"]}`}, nil }
	run := func(open Opener, args ...string) (fakeConfig, error) {
		e, _, _ := testEnv(args...)
		f := NewFlags(e, "node run", "", "")
		c := fakeConfig{Listen: []string{"default"}}
		f.StringVar(&c.Name, "name", "default", "")
		f.ListVar(&c.Listen, "listen", "")
		if _, err := f.Parse(0, 0); err != nil {
			t.Fatal(err)
		}
		err := f.Overlay(open, "node", &c)
		return c, err
	}
	if c, err := run(file); err != nil || c.Name != "file" || !slices.Equal(c.Listen, []string{"a", "b"}) {
		t.Error(c, err)
	}
	if c, err := run(file, "--name", "flag", "--listen", "x", "--listen", "y"); err != nil || c.Name != "flag" || !slices.Equal(c.Listen, []string{"x", "y"}) {
		t.Error(c, err)
	}
	gone := func(string) (Sections, error) { return nil, fs.ErrNotExist }
	if c, err := run(gone); err != nil || c.Name != "default" || !slices.Equal(c.Listen, []string{"default"}) {
		t.Error(c, err)
	}
	if _, err := run(gone, "--config", "/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a named file that is not there must be an error:", err)
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	names := []string{"run", "status", "install-links", "ps"}
	for word, want := range map[string]string{
		"rnu": "run", "statsu": "status", "Status": "status", "stat": "status", "inst": "install-links", "xyz": "", "r": "", "sp": "ps",
	} {
		if got := Suggest(word, names); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1500: "1.5 kB", 999_950: "1 MB", 12_345_678: "12.3 MB", 5e12: "5 TB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestDuty(t *testing.T) {
	t.Parallel()
	e, _, talk := testEnv()
	f := NewFlags(e, "node run", "", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if code := f.Duty(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }); code != 1 {
		t.Error("a deadline is no clean end", code, talk)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if code := f.Duty(ctx, func(ctx context.Context) error { return fmt.Errorf("run: %w", ctx.Err()) }); code != 0 {
		t.Error(code)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	e, out, _ := testEnv()
	tab := e.NewTable("KEY", "NAME")
	tab.Row("abc", "")
	tab.Row("a\tb", 7)
	if err := tab.Flush(); err != nil || out.String() != "KEY  NAME\nabc  -\na b  7\n" {
		t.Errorf("%q %v", out, err)
	}
}
