package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestE2EPeeringRotate: a cluster gets a new cluster key while a peering lives. What it exports is reached on under the name that
// it had, without a word of the other administrator, who is told; a box that is under the old key still is refused.
func TestE2EPeeringRotate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rotate")
	w.boxes("a1", "a2", "b1")
	w.must(w.lab.Wire(w.end("a1", "out", "192.0.2.1/24"), w.end("b1", "out", "192.0.2.2/24")),
		w.lab.Wire(w.end("a1", "to2", "10.1.2.1/24"), w.end("a2", "up", "10.1.2.2/24")),
		w.lab.Wire(w.end("a2", "out", "198.51.100.1/24"), w.end("b1", "out2", "198.51.100.2/24")))
	for _, box := range []string{"a1", "b1", "a2"} {
		w.node(box, "--no-lan", "--no-punch")
		if box != "a2" {
			w.found(box)
		}
	}
	w.join("a2", w.invite("a1", "--name", "a2", "--addr", "10.1.2.1:"+meshPort))
	w.member("a2", func(m membershipJSON) bool { return m.State == "member" })
	for _, box := range []string{"a1", "a2", "b1"} {
		p := w.start(box, "messenger", "messenger", "run")
		w.wait("gateway of "+box, func(ctx context.Context) error {
			_, err := w.box[box].Skywire(ctx, "messenger", "peer", "list")
			return w.alive(p, err)
		})
	}
	for _, box := range []string{"a1", "b1"} {
		w.serve(box, "127.0.0.1:8080")
		w.start(box, "publish", "socks", "publish", map[string]string{"a1": "web", "b1": "inner"}[box]+":80=tcp://127.0.0.1:8080", "--allow", "any")
	}
	w.offered("a1", "web")
	w.offered("b1", "inner")
	invite := w.skywire("a1", "messenger", "peer", "invite", "--name", "oslo", "--export", "web", "--ask", "inner", "--at", "192.0.2.1:"+meshPort)
	w.skywire("b1", "messenger", "peer", "accept", "--yes", "--name", "rome", "--at", "192.0.2.2:"+meshPort, "--at", "198.51.100.2:"+meshPort, invite)
	w.offered("b1", "web@oslo")
	w.start("b1", "forward", "socks", "forward", "--local", "8081=b1:web@oslo")
	w.checkWeb("b1", "http://127.0.0.1:8081/", "127.0.0.1")
	w.offered("a2", "inner@rome") // its messenger has the record from a1
	w.start("a2", "forward", "socks", "forward", "--local", "8081=a2:inner@rome")
	w.checkWeb("a2", "http://127.0.0.1:8081/", "127.0.0.1")

	w.must(w.run["a1 manager"].Stop(patience))
	state := w.box["a1"].State()
	for _, name := range []string{"cluster.key", "admin.key"} {
		w.must(os.Rename(filepath.Join(state, name), filepath.Join(state, "old-"+name)))
	}
	began := time.Now()
	w.skywire("a1", "node", "leave")
	w.member("a1", func(m membershipJSON) bool { return m.State != "member" })
	w.skywire("a1", "manager", "cluster", "create", "--name", "a1")
	var r struct {
		Peerings []struct {
			Name    string
			Rotated struct{ Told string }
		}
	}
	w.wait("the rotation", func(ctx context.Context) error { // the messenger has to see that the node has moved
		err := w.box["a1"].SkywireJSON(ctx, &r, "messenger", "peer", "rotate", "--old-key", filepath.Join(state, "old-cluster.key"), "--overlap", "0s", "--at", "192.0.2.1:"+meshPort)
		if err == nil && (len(r.Peerings) != 1 || r.Peerings[0].Name != "rome" || r.Peerings[0].Rotated.Told != "yes") {
			t.Errorf("%+v", r)
		}
		return err
	})
	w.checkWeb("b1", "http://127.0.0.1:8081/", "127.0.0.1")
	t.Logf("web@oslo again %v after the box began to move", time.Since(began).Round(time.Millisecond))

	var p struct {
		State   string
		Cluster string
		Rotated struct{ From, To, By string }
	}
	w.must(w.box["b1"].SkywireJSON(t.Context(), &p, "messenger", "peer", "show", "oslo"))
	if p.State != "in force" || p.Rotated.By != "them" || p.Rotated.To != p.Cluster || p.Rotated.From == p.Cluster {
		t.Errorf("b1 shows %+v", p)
	}
	var lines []struct{ Name, Scope, From string }
	w.must(w.box["b1"].SkywireJSON(t.Context(), &lines, "messenger", "audit"))
	if len(lines) != 1 || lines[0].Scope != "peering" || lines[0].Name != "oslo" || lines[0].From != p.Cluster {
		t.Errorf("the audit of b1 says %+v", lines)
	}
	w.wait("the box under the old key is refused", func(ctx context.Context) error {
		out, err := w.box["a2"].Exec(ctx, "curl", "-sS", "-m", "5", "http://127.0.0.1:8081/")
		if err == nil {
			return fmt.Errorf("it got %q", out)
		}
		return nil
	})
	if _, err := w.box["a1"].Skywire(t.Context(), "messenger", "peer", "rotate", "--old-key", filepath.Join(state, "old-cluster.key")); err == nil {
		t.Error("rotated a second time")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
