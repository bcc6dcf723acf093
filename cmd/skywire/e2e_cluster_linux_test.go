package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// routerConfig is that of a box in TestE2ECluster: its node and a vpn are apps, and the operator's key may do all.
const routerConfig = `settings:
  runHeadless: true
  remote: {admin: [%s]}
node: {listen: ["udp://[::]:%s"], open: true, peers: [%s], no_lan: true, no_punch: true, no_port_mapping: true, publish: none}
apps:
  node: {path: node, default_args: [run], autostart: true, daemon: true}
  vpn: {path: vpn, default_args: [up], autostart: true, daemon: true}
  idle: {path: /bin/sleep, default_args: [1000], autostart: true}
%s`

// answerJSON is what viscript -n SEVERAL --json prints of one box.
type answerJSON struct {
	Node, Name string
	Status     int
	Errors     string
	Result     json.RawMessage
}

// TestE2ECluster: an operator works on all boxes of a tag over the mesh: failures stand beside the others, a change is kept
// where the box answers after it, and one that cuts a box off returns by itself. ru tells what apps carried in the mesh.
func TestE2ECluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "fleet")
	w.boxes("op", "r1", "r2")
	w.must(
		w.lab.Wire(w.end("op", "one", "10.1.0.1/24"), w.end("r1", "up", "10.1.0.2/24")),
		w.lab.Wire(w.end("op", "two", "10.1.1.1/24"), w.end("r2", "up", "10.1.1.2/24")))
	w.node("op", "--no-lan", "--no-punch")
	w.found("op")
	for i, r := range []string{"r1", "r2"} {
		w.must(w.box[r].WriteConfig(w.routers(true, "")))
		p := w.start(r, "viscript", "viscript", "run")
		w.wait("node of "+r, func(ctx context.Context) error {
			_, err := w.box[r].Skywire(ctx, "node", "status")
			return w.alive(p, err)
		})
		w.join(r, w.invite("op", "--name", r, "--tag", "routers", "--addr", fmt.Sprintf("10.1.%d.1:%s", i, meshPort)))
		w.wait("viscript of "+r, func(ctx context.Context) error {
			_, err := w.box["op"].Skywire(ctx, "viscript", "-n", r, "status")
			return w.alive(p, err)
		})
	}
	w.carried("r1")
	w.applied()
	w.cutOff("r1")
	w.partly()
}

// routers is a config.yaml for both routers.
func (w *world) routers(peers bool, more string) string {
	op := ""
	if peers {
		op = w.peer("op", "10.1.0.1") + ", " + w.peer("op", "10.1.1.1")
	}
	return fmt.Sprintf(routerConfig, w.key["op"], meshPort, op, more)
}

// operate runs viscript -n on the operator's box with --json and wants an exit status.
func (w *world) operate(want int, into any, args ...string) (stderr string) {
	w.t.Helper()
	path, err := builtBinary()
	w.must(err)
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	c := w.box["op"].Command(ctx, path, append([]string{"viscript", "-n"}, args...)...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if got := c.ProcessState.ExitCode(); got != want {
		w.t.Fatalf("%v: status %d, want %d: %v %s%s", args, got, want, err, out, errs.String())
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			w.t.Fatalf("%v: %v in %s", args, err, out)
		}
	}
	return errs.String()
}

// carried wants what the node and an app carried in the mesh to be in ru, and nothing of an app that carries nothing.
func (w *world) carried(box string) {
	w.t.Helper()
	w.vpnUp("op")
	w.pings("op", w.address(box))
	for app, want := range map[string]bool{"node": true, "vpn": true, "idle": false} {
		var r struct {
			Rx     *uint64 `json:"net_rx_bytes"`
			Tx     *uint64 `json:"net_tx_bytes"`
			Source string
		}
		w.operate(0, &r, box, "ru", app, "--json")
		if got := r.Rx != nil && r.Tx != nil && *r.Rx > 0 && *r.Tx > 0; got != want || strings.Contains(r.Source, "mesh") != want {
			w.t.Errorf("ru %s: %+v", app, r)
		}
	}
}

// applied applies a change to all routers, which confirms itself where the box still answers.
func (w *world) applied() {
	w.t.Helper()
	file := filepath.Join(w.box["op"].Dir, "more.yaml")
	w.must(os.WriteFile(file, []byte(w.routers(true, "  echo: {path: /bin/echo, desc: the change}\n")), 0o600))
	var all []answerJSON
	w.operate(0, &all, "@tag:routers", "apply", file, "--confirm-after", "300ms", "--json")
	if len(all) != 2 {
		w.t.Fatalf("%+v", all)
	}
	for _, r := range []string{"r1", "r2"} {
		if out := w.skywire("op", "viscript", "-n", r, "apps"); !strings.Contains(out, "the change") {
			w.t.Errorf("%s has not changed: %s", r, out)
		}
		if said := w.operate(4, nil, r, "confirm"); !strings.Contains(said, "nothing waits") {
			w.t.Errorf("%s: %s", r, said)
		}
	}
}

// cutOff empties the peer list of a box from afar. Nobody can confirm that, so the box returns by itself.
func (w *world) cutOff(box string) {
	w.t.Helper()
	file := filepath.Join(w.box["op"].Dir, "alone.yaml")
	w.must(os.WriteFile(file, []byte(strings.ReplaceAll(w.routers(false, ""), "[::]:"+meshPort, "127.0.0.1:"+meshPort)), 0o600))
	before, err := os.ReadFile(w.box[box].Config())
	w.must(err)
	w.operate(0, nil, box, "apply", file, "--confirm-within", "4s")
	w.wait("the link to go down", func(context.Context) error {
		if log := w.run["op node"].Output(); !strings.Contains(log, `"link down" applet=node peer=`+w.key[box]) {
			return errors.New("it is up")
		}
		return nil
	})
	w.wait(box+" is back", func(ctx context.Context) error {
		if log := w.run[box+" viscript"].Output(); !strings.Contains(log, "not confirmed in time") {
			return errors.New("it has not returned yet")
		}
		_, err := w.box["op"].Skywire(ctx, "viscript", "-n", box, "status")
		return err
	})
	after, err := os.ReadFile(w.box[box].Config())
	w.must(err)
	if string(after) != string(before) {
		w.t.Errorf("config.yaml is not what it was:\n%s", after)
	}
}

// partly wants one failure among several boxes to be shown beside the others, and its status.
func (w *world) partly() {
	w.t.Helper()
	w.must(w.run["r2 viscript"].Stop(20 * time.Second))
	var all []answerJSON
	said := w.operate(3, &all, "@tag:routers", "ps", "--json")
	if len(all) != 2 || !strings.Contains(said, "1 of 2 boxes failed: r2") {
		w.t.Fatalf("%+v, %s", all, said)
	}
	for _, a := range all {
		if ok := a.Name == "r1"; ok != (a.Status == 0) || ok != (a.Errors == "") {
			w.t.Errorf("%+v", a)
		}
	}
	if said := w.operate(4, nil, "@tag:printers", "ps"); !strings.Contains(said, "no member has the tag") {
		w.t.Error(said)
	}
	w.operate(2, nil, "@nobody", "ps")
}
