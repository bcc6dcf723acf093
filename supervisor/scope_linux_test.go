package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"skywire/signal"
)

// operator connects to s with a scope as from another box.
func operator(t *testing.T, s *Supervisor, scope Scope) *signal.Conn {
	t.Helper()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { s.ServeStream(context.Background(), far, Caller{Name: "key " + scope.String(), Scope: scope}) })
	c := signal.NewConn(near, nil)
	wg.Go(func() { c.Run(context.Background()) })
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return c
}

// TestDescribe: what is described can be asked, and every parameter named exists.
func TestDescribe(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, shells).run()
	c := operator(t, s, Read)
	var d Described
	if err := c.Call(t.Context(), "viscript.describe", nil, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Methods) < 18 || d.Errors["not_found"] != -32001 {
		t.Errorf("%+v", d)
	}
	for _, m := range d.Methods {
		for p, kind := range m.Params {
			if kind == "" {
				t.Errorf("%s: %s has no type", m.Name, p)
			}
		}
		if m.Scope == "read" {
			if err := c.Call(t.Context(), m.Name, map[string]any{}, nil); errors.Is(err, signal.ErrUnknownMethod) {
				t.Errorf("%s: %v", m.Name, err)
			}
		}
	}
}

// TestSpecScopes: the specification names every method, and no other, with the scope that it needs.
func TestSpecScopes(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../signal/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, "|")
		if len(f) < 3 || !slices.Contains([]string{"read", "operate", "admin"}, strings.TrimSpace(f[1])) {
			continue
		}
		words, _, _ := strings.Cut(strings.ReplaceAll(f[2], "`", ""), " and the above")
		for _, name := range strings.Fields(strings.ReplaceAll(words, "viscript.", "")) {
			want["viscript."+name] = strings.TrimSpace(f[1])
		}
	}
	for _, m := range methods() {
		if want[m.Name] != m.Scope {
			t.Errorf("%s needs %s, SPEC.md says %q", m.Name, m.Scope, want[m.Name])
		}
		delete(want, m.Name)
	}
	if len(want) != 0 {
		t.Errorf("SPEC.md has methods that there are not: %v", want)
	}
}

// TestScopes: every method needs what it needs, over a stream of another box, and changes are recorded with who asked.
func TestScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shells)
	s, _ := w.run()
	id := s.mustStart(t, "sh", "-c", "sleep 1000")
	need := map[string]Scope{
		"viscript.status": Read, "viscript.apps": Read, "viscript.help": Read, "viscript.ps": Read, "viscript.ping": Read,
		"viscript.ru": Read, "viscript.top": Read, "viscript.logs": Read, "viscript.events": Read,
		"viscript.start": Operate, "viscript.restart": Operate, "viscript.attach": Operate,
		"viscript.input": Operate, "viscript.signal": Operate, "viscript.stop": Operate,
		"viscript.reload": Admin, "viscript.apply": Admin, "viscript.confirm": Admin, "viscript.rollback": Admin, "viscript.upgrade": Admin, "viscript.nosuch": Admin,
	}
	for _, scope := range []Scope{None, Read, Operate, Admin} {
		c := operator(t, s, scope)
		for method, least := range need {
			if method == "viscript.stop" && scope >= Operate {
				continue
			}
			err := c.Call(t.Context(), method, map[string]any{"id": "1", "app": "sh", "signal": "HUPP", "text": "no config"}, nil)
			if refused := errors.Is(err, signal.ErrRefused) && strings.Contains(err.Error(), "needs the scope"); refused != (scope < least) {
				t.Errorf("%s with the scope %s: %v", method, scope, err)
			}
		}
	}
	if it := stateOf(t, s, id); it.PID == nil {
		t.Errorf("%+v", it)
	}
	if err := operator(t, s, Operate).Call(t.Context(), "viscript.stop", map[string]any{"id": "1"}, nil); err != nil {
		t.Error(err)
	}
	lines, _ := s.bus.Last(-1)
	found := false
	for _, l := range lines {
		found = found || strings.Contains(l.Text, `"command"`) && strings.Contains(l.Text, "stop 1, by key operate")
		if strings.Contains(l.Text, "key read") {
			t.Errorf("looking is recorded: %s", l.Text)
		}
	}
	if !found {
		t.Error("no record of who stopped it")
	}
}

// TestLongAnswers: whoever reads lines by cursor, in answers that hold only some of them, gets each of them once.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps: {sh: {path: /bin/sh, log_bytes: 4000000, log: {rate: 0}, default_args: [-c, 'l=$(printf %03000d 0); i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i $l; done'], restart: never}}`)
	s, _ := w.run()
	s.mustStart(t, "sh")
	s.reaches(t, "sh", Exited, "")
	c := operator(t, s, Read)
	for _, first := range []int{0, 300} {
		cursor, got, answers := uint64(1), 0, 0
		for {
			var lines []Line
			if err := c.Call(t.Context(), "viscript.logs", params{ID: "sh", Cursor: &cursor, First: first}, &lines); err != nil {
				t.Fatal(err)
			}
			if len(lines) == 0 {
				break
			}
			answers++
			for _, l := range lines {
				if l.Seq != cursor {
					t.Fatalf("line %d where %d was due", l.Seq, cursor)
				}
				if cursor++; l.Stream == streamOut {
					got++
				}
			}
		}
		if got != 400 || answers < 4 {
			t.Errorf("%d lines in %d answers", got, answers)
		}
	}
	var last []Line
	if err := c.Call(t.Context(), "viscript.logs", params{ID: "sh"}, &last); err != nil || !strings.HasPrefix(last[len(last)-1].Text, "400 ") && last[len(last)-1].Stream != streamNote {
		t.Errorf("without a cursor: %d lines, %v", len(last), err)
	}
}
