package node_test

import (
	"context"
	"path/filepath"
	"testing"

	"skywire/mesh/app"
	"skywire/mesh/node"
)

// TestReadyAnswers: a node that says that it is ready can be asked. A service manager starts what needs it in that moment.
func TestReadyAnswers(t *testing.T) {
	t.Parallel()
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		dir := t.TempDir()
		run := filepath.Join(dir, "run")
		asked := false
		err := node.Run(ctx, node.Config{State: dir, Run: run, Listen: []string{"127.0.0.1:0"}, Ready: func() {
			defer cancel()
			asked = true
			c, err := app.Dial(ctx, run)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		}})
		if err != nil || !asked {
			t.Errorf("asked: %v, %v", asked, err)
		}
	}
}
