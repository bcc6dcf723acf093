package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"skywire/tun/vpn"
)

// vpnState is the state of the vpn of a box.
func (w *world) vpnState(ctx context.Context, box string) (s vpn.Status, path []string, err error) {
	var r struct {
		vpn.Status
		Path []string
	}
	err = w.box[box].SkywireJSON(ctx, &r, "vpn", "status")
	return r.Status, r.Path, err
}

func (w *world) connected(box, server string) (s vpn.Status) {
	w.t.Helper()
	w.wait("vpn of "+box+" connected", func(ctx context.Context) error {
		var path []string
		var err error
		s, path, err = w.vpnState(ctx, box)
		if err == nil && (s.State != vpn.Connected || s.Client.Server != w.key[server] || len(path) < 2) {
			err = fmt.Errorf("%s, %+v, path %v", s.State, s.Client, path)
		}
		return err
	})
	return s
}

// leakCheck runs the check of vpn status and wants what it says.
func (w *world) leakCheck(box string, want bool) (r vpn.LeakReport) {
	w.t.Helper()
	out, err := w.box[box].Skywire(w.t.Context(), "vpn", "status", "--leak-check", "--json")
	if e := json.Unmarshal([]byte(out), &r); e != nil {
		w.t.Fatalf("leak check: %v, %v in %q", err, e, out)
	}
	if r.OK != want || !r.Sees || (err == nil) != want {
		w.t.Errorf("leak check: ok %v, sees %v, %v; want ok %v: %s", r.OK, r.Sees, err, want, out)
	}
	return r
}

// TestE2ELeakCheck: the check finds what a box without kill switch lets out, and nothing with it, in the same places.
func TestE2ELeakCheck(t *testing.T) {
	t.Parallel()
	w := leakWorld(t, "leakcheck")
	m := &leakMatrix{world: w}
	m.server("b")
	w.leakNodeA()
	for _, lock := range []bool{false, true} {
		args := []string{"vpn", "client", "--server", w.key["b"], "--exit"}
		if lock {
			args = append(args, "--kill-switch")
		}
		p := w.start("a", "vpn", args...)
		w.connected("a", "b")
		r := w.leakCheck("a", lock)
		during := map[string]int{}
		for _, l := range r.Tried {
			during[l.During]++
			bound := l.Via == "wan" || l.Via == "alt" // nothing but a firewall keeps these in
			router := strings.HasPrefix(l.To, "10.") || strings.HasPrefix(l.To, "2001:db8:")
			if got := l.Outside > 0; got != (!lock && (bound || router)) && !(l.To[0] == '2' && !got) {
				t.Errorf("kill switch %v: %+v", lock, l)
			}
		}
		if during["connected"] == 0 || during["connected"] != during["reconnecting"] {
			t.Errorf("tried %v", during)
		}
		w.must(p.Stop(patience))
	}
	if _, err := w.box["a"].Skywire(t.Context(), "vpn", "killswitch", "show"); err != nil {
		t.Error("after the vpn's end:", err)
	}
	m.skywire("vpn", "release")
	out, err := w.box["a"].Skywire(t.Context(), "vpn", "killswitch", "show")
	if err != nil || !strings.Contains(out, "wanted: no; firewall: no; routes: no") {
		t.Errorf("after release: %q %v", out, err)
	}
}
