package applets

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/supervisor/config"
)

// troubledNode answers at a node's socket: it goes in the middle of the first connection, refuses the first registration, and knows
// a member's name only after one was taken.
type troubledNode struct {
	member     key.Public
	registered chan []string // who may come in, of each registration that was taken

	mu                          sync.Mutex // guards the fields below
	connections, refused, taken int
}

func (n *troubledNode) handle(_ context.Context, r *signal.Request) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r.Method {
	case "node.id":
		return app.Info{}, nil
	case "node.resolve":
		if n.taken == 0 {
			return nil, signal.Errorf(signal.ErrNotFound, "no such name")
		}
		return map[string]string{"key": n.member.String()}, nil
	case "app.register":
		if n.refused++; n.refused == 1 {
			return nil, signal.Errorf(signal.ErrRefused, "another app has that name")
		}
		var reg app.Registration
		if err := r.Bind(&reg); err != nil {
			return nil, err
		}
		n.taken++
		n.registered <- reg.Services[0].Allow
		return json.RawMessage("{}"), nil
	}
	return nil, signal.Errorf(signal.ErrNotFound, "nothing is known of %s", r.Method)
}

// TestOperatorsOfATroubledNode: viscript starts beside a node that is just starting anew. Operators are served in the end all the
// same, and so are those whose names are known later.
func TestOperatorsOfATroubledNode(t *testing.T) {
	t.Parallel()
	run, err := os.MkdirTemp("", "run") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	l, err := signal.Listen(filepath.Join(run, app.SocketName), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n := &troubledNode{member: someKey(t), registered: make(chan []string, 8)}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		err := signal.Serve(ctx, l, func(*signal.Conn) signal.Handler {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.connections++; n.connections == 1 {
				return nil // the connection ends
			}
			return n.handle
		})
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	admin := someKey(t)
	all.Go(func() {
		serve := serveOperators(run, slog.New(slog.DiscardHandler))
		if err := serve(ctx, nil, config.Remote{Read: []string{"late"}, Admin: []string{admin.String()}}); err != nil {
			t.Error(err)
		}
	})
	for _, want := range []key.Public{admin, n.member} {
		select {
		case allow := <-n.registered:
			if !slices.Contains(allow, want.String()) {
				t.Errorf("%s may not come in: %v", want.Short(), allow)
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody registers")
		}
	}
}
