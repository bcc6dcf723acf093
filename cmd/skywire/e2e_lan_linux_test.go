package main

import (
	"bytes"
	"context"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// TestE2ELAN: nodes on one Ethernet, told nothing of each other, without a manager and without a way out, find each other: open ones,
// and those whose lists name each other. Strangers stay strangers, and what they send tells them nothing.
func TestE2ELAN(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "lan")
	w.plain("sw", "ear")
	w.boxes("a", "b", "c", "d", "e", "f")
	w.must(w.lab.Switch(w.box["sw"], "br0",
		w.end("a", "eth0", "10.7.0.1/24"), w.end("b", "eth0", "10.7.0.2/24"), w.end("c", "eth0", "10.7.0.3/24"),
		w.end("d", "eth0"), w.end("e", "eth0"), w.end("f", "eth0", "10.7.0.6/24"), w.end("ear", "eth0", "10.7.0.9/24")))
	tape, err := w.box["ear"].Record()
	w.must(err)
	static := func(box string, allow ...string) {
		args := []string{"node", "run", "--name", box, "--listen", "udp://[::]:" + meshPort}
		for _, a := range allow {
			args = append(args, "--allow", w.key[a])
		}
		w.start(box, "node", args...)
	}
	start := time.Now()
	w.node("a")
	static("b", "c", "e")
	static("c", "b")
	static("d", "e") // IPv6 alone, and no address but the link-local one
	static("e", "d", "b")
	w.start("f", "node", "node", "run", "--name", "f", "--listen", "udp://[::]:"+meshPort, "--allow", w.key["a"], "--no-lan")
	for _, pair := range [][2]string{{"b", "c"}, {"d", "e"}, {"b", "e"}} {
		w.wait(pair[0]+" and "+pair[1]+" link", func(ctx context.Context) error { return w.linked(ctx, pair[0], pair[1]) })
	}
	t.Logf("all linked %v after the first start", time.Since(start).Round(time.Millisecond))
	w.reach("b", "c")
	w.reach("b", "e") // by link-local addresses alone
	if up := w.ups("a"); len(up) > 0 {
		t.Errorf("the open node has links with %v, which do not admit it", up)
	}
	for _, box := range []string{"b", "c", "d", "e"} {
		if slices.Contains(w.ups(box), w.key["f"]) || slices.Contains(w.ups(box), w.key["a"]) {
			t.Errorf("%s has links with %v", box, w.ups(box))
		}
	}
	// An interface that comes later: its groups are joined, and what is there is found.
	w.boxes("g")
	w.node("g")
	w.must(w.lab.Wire(w.end("g", "eth0", "10.8.0.2/24"), w.end("a", "eth1", "10.8.0.1/24")))
	start = time.Now()
	w.wait("a and g link", func(ctx context.Context) error { return w.linked(ctx, "a", "g") })
	t.Logf("found on a new interface after %v", time.Since(start).Round(time.Millisecond))
	w.checkBeacons(tape)
	w.stopAll("node")
}

// ups are the keys of a box's links that are up.
func (w *world) ups(box string) (all []string) {
	w.t.Helper()
	var peers []struct{ Key, State string }
	w.must(w.box[box].SkywireJSON(w.t.Context(), &peers, "node", "peers"))
	for _, p := range peers {
		if p.State == "up" {
			all = append(all, p.Key)
		}
	}
	return all
}

// linked returns nil once two boxes have a link that is up.
func (w *world) linked(ctx context.Context, a, b string) error {
	var peers []struct{ Key, State, Endpoint string }
	if err := w.box[a].SkywireJSON(ctx, &peers, "node", "peers"); err != nil {
		return err
	}
	for _, p := range peers {
		if p.Key == w.key[b] && p.State == "up" {
			return nil
		}
	}
	return fmt.Errorf("%s has %v", a, peers)
}

// checkBeacons looks for what a stranger on the wire must not learn: the keys of the nodes with lists.
func (w *world) checkBeacons(tape *lab.Recording) {
	w.t.Helper()
	raw := bytes.Join(tape.Stop(), nil)
	if !bytes.Contains(raw, []byte{0x1d, 0xf2}) { // the port
		w.t.Error("no beacon was heard")
	}
	for _, box := range []string{"b", "c", "d", "e"} {
		k, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(w.key[box]))
		w.must(err)
		if bytes.Contains(raw, k) {
			w.t.Errorf("the wire tells the key of %s", box)
		}
	}
}
