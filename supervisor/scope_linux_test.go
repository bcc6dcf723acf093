package supervisor

import (
	"context"
	"errors"
	"net"
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
