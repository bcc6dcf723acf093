package applets

import (
	"context"
	"log/slog"
	"testing"

	"skywire/mesh/key"
	"skywire/supervisor"
)

// TestNamesGrantNoScope is test 5 of the protocol: with a manager's key one can sign a certificate for any name. It must not
// make anybody an operator.
func TestNamesGrantNoScope(t *testing.T) {
	t.Parallel()
	thief, owner := someKey(t), someKey(t)
	certified := func(context.Context, string) (key.Public, error) { return thief, nil }
	for scope, want := range map[supervisor.Scope]supervisor.Scope{
		supervisor.Read: supervisor.Read, supervisor.Operate: supervisor.None, supervisor.Admin: supervisor.None,
	} {
		o := &operators{log: slog.New(slog.DiscardHandler), keys: map[key.Public]supervisor.Scope{}}
		o.allow(t.Context(), certified, []string{"boss", owner.String()}, scope)
		if got := o.keys[thief]; got != want {
			t.Errorf("%v by name: got %v, want %v", scope, got, want)
		}
		if got := o.keys[owner]; got != scope {
			t.Errorf("%v by key: got %v", scope, got)
		}
	}
}

func someKey(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}
