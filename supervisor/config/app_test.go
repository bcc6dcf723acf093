package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestApp(t *testing.T) {
	t.Parallel()
	f, err := Parse([]byte(`
apps:
  db: {path: db, ready: {tcp: "127.0.0.1:5432"}, limits: {memory: 64MiB, pids: 20, cpu: 50, files: 1024}, user: nobody}
  web:
    path: web
    depends_on: [db]
    ready: {log: "^listening", timeout: 5s}
    health: {http: "http://127.0.0.1:80/health", every: 10s, action: log}
    watchdog: 30s
    hooks: {restart: [/bin/true, x]}
  night: {path: x, oneshot: true, schedule: "30 3 * * mon-fri"}
`))
	if err != nil {
		t.Fatal(err)
	}
	db, web, night := f.Apps["db"], f.Apps["web"], f.Apps["night"]
	if db.Limits.Memory != 64<<20 || !db.Ready.Wanted() || time.Duration(db.Ready.Timeout) != DefaultReady || db.Health.Wanted() {
		t.Errorf("%+v", db)
	}
	if web.Health.Failures != 3 || web.Health.Action != ActionLog || time.Duration(web.Watchdog) != 30*time.Second || web.Ready.Log != "^listening" {
		t.Errorf("%+v", web)
	}
	if night.Restart != Never || !night.Oneshot {
		t.Errorf("%+v", night)
	}
}

func TestAppErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ app, want string }{
		{"depends_on: [b]", `depends_on: no app "b"`},
		{"depends_on: [a]", "depends_on goes round: a → a"},
		{"ready: {tcp: here}", "is no host:port"},
		{"ready: {tcp: 'a:1', notify: true}", "ready: one of"},
		{"ready: {fd: 2}", "ready.fd: 3 to 63"},
		{"ready: {log: '('}", "ready.log"},
		{"ready: {tpc: 'a:1'}", `unknown key "tpc" in apps.a.ready, did you mean "tcp"?`},
		{"health: {http: 'https://x'}", "is no http:// address"},
		{"health: {ping: true, action: reboot}", "expected restart, stop or log"},
		{"limits: {memory: lots}", `"lots" is no size such as 64MiB`},
		{"nice: 40", "nice: -20 to 19"},
		{"inproc: true, user: x", "have no effect with inproc"},
		{"oneshot: true, restart: always", "contradict each other"},
		{"schedule: '61 * * * *'", "values are 0 to 59"},
		{"schedule: 'daily'", "five fields"},
	}
	for _, tt := range tests {
		_, err := Parse([]byte("apps:\n  a: {path: x, " + tt.app + "}\n"))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.app, err, tt.want)
		}
	}
	_, err := Parse([]byte("apps:\n  a: {path: x, depends_on: [b]}\n  b: {path: x, depends_on: [c]}\n  c: {path: x, depends_on: [a]}\n"))
	if err == nil || !strings.Contains(err.Error(), "a → b → c → a") {
		t.Errorf("got %v", err)
	}
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 30, 22, 15, 30, 0, time.UTC) // a Friday
	tests := []struct{ text, want string }{
		{"* * * * *", "2026-01-30 22:16"},
		{"*/10 * * * *", "2026-01-30 22:20"},
		{"0 3 * * *", "2026-01-31 03:00"},
		{"30 3 * * mon-fri", "2026-02-02 03:30"},
		{"0 0 31 * *", "2026-01-31 00:00"},
		{"0 0 29 2 *", "2028-02-29 00:00"},
		{"0 12 1 * 6", "2026-01-31 12:00"}, // the first, or a Saturday
		{"0 0 * * 7", "2026-02-01 00:00"},
		{"5,7 22 * JAN *", "2026-01-31 22:05"},
		{"@yearly", "2027-01-01 00:00"},
		{"@hourly", "2026-01-30 23:00"},
		{"@every 90s", "2026-01-30 22:17"},
		{"0 0 31 2 *", "0001-01-01 00:00"}, // never
	}
	for _, tt := range tests {
		s, err := ParseSchedule(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got := s.Next(from).Format("2006-01-02 15:04"); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
	for _, bad := range []string{"", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "x * * * *", "@every 1ms", "@every"} {
		if _, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q is a schedule", bad)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add("*/5 1-4,7 1 jan *")
	f.Add("@every 3h")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		from := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
		if next := s.Next(from); !next.IsZero() && !next.After(from) {
			t.Errorf("%q: %v is not after %v", text, next, from)
		}
	})
}

// TestExample: the annotated file has every key, and what it calls defaults are the defaults.
func TestExample(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	plain, spelled := f.Apps["plain"], f.Apps["spelled"]
	plain.Name = spelled.Name
	for _, list := range []*[]string{
		&spelled.DefaultArgs, &spelled.DependsOn, &spelled.Ready.Exec, &spelled.Health.Exec, &spelled.Hooks.Restart,
		&spelled.Hooks.Ready, &spelled.Hooks.Failed,
	} {
		if len(*list) == 0 {
			*list = nil // [] and nothing are the same
		}
	}
	if len(spelled.Secrets) == 0 {
		spelled.Secrets = nil
	}
	if len(spelled.Env) == 0 {
		spelled.Env = nil
	}
	if !reflect.DeepEqual(plain, spelled) {
		t.Errorf("the defaults are %+v, the file says %+v", plain, spelled)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[App](), reflect.TypeFor[Settings](), reflect.TypeFor[Remote](), reflect.TypeFor[Web](), reflect.TypeFor[Ready](), reflect.TypeFor[Health](), reflect.TypeFor[Hooks](), reflect.TypeFor[Limits](), reflect.TypeFor[Log]()} {
		keys := map[string]reflect.Type{}
		keysOf(typ, keys)
		for k := range keys {
			if !strings.Contains(string(b), " "+k+":") {
				t.Errorf("%s.%s is not in the file", typ.Name(), k)
			}
		}
	}
}
