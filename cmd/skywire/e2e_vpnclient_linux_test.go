package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

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
	began := time.Now()
	out, err := w.box[box].Skywire(w.t.Context(), "vpn", "status", "--leak-check", "--json")
	w.t.Logf("leak check took %v", time.Since(began).Round(10*time.Millisecond))
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

// answerNames answers every question for an address with one.
func (w *world) answerNames(box, listen string, addr [4]byte) {
	w.t.Helper()
	var pc net.PacketConn
	w.must(w.box[box].Enter(func() (err error) {
		pc, err = net.ListenPacket("udp", listen)
		return err
	}))
	w.t.Cleanup(func() { _ = pc.Close() })
	go func() { // ends when the socket is closed
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12
			for end < n && b[end] != 0 {
				end += int(b[end]) + 1
			}
			if end += 5; end > n {
				continue
			}
			a := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end]...)
			if b[end-3] == 1 { // type A
				a[7] = 1
				a = append(append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4), addr[:]...)
			}
			_, _ = pc.WriteTo(a, from)
		}
	}()
}

// TestE2ESplit: a router's LAN and its own programs through an exit, but for a user, a cgroup and a domain, all under a
// kill switch; what dies lets nothing out.
func TestE2ESplit(t *testing.T) {
	t.Parallel()
	w := leakWorld(t, "split")
	w.plain("lan")
	w.must(w.lab.Wire(w.end("a", "lan", "10.9.0.1/24"), w.end("lan", "eth0", "10.9.0.2/24")),
		w.box["lan"].IP("route add default via 10.9.0.1"), w.box["web"].IP("addr add 198.51.100.2/24 dev eth0"),
		w.box["r"].IP("route add 10.9.0.0/24 via 10.1.0.2"), // what leaks gets an answer
		w.box["a"].WriteEtc("resolv.conf", "nameserver 10.1.0.1\n"))
	w.serve("web", "198.51.100.2:80")
	w.answerNames("web", "198.51.100.1:53", [4]byte{198, 51, 100, 2})
	m := &leakMatrix{world: w}
	m.server("b")
	w.leakNodeA()
	group := fmt.Sprintf("skywire-split-%d", os.Getpid())
	w.box["a"].Wrap("sh", "-c", `mount -t cgroup2 none /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/`+group+` && exec "$@"`, "sh")
	t.Cleanup(func() {
		_, _ = w.box["a"].Exec(context.Background(), "rmdir", "/sys/fs/cgroup/"+group)
	})
	p := w.start("a", "vpn", "vpn", "client", "--server", w.key["b"], "--exit", "--kill-switch", "--dns", "198.51.100.1",
		"--exclude-user", "4242", "--exclude-cgroup", group, "--exclude-domain", "direct.example", "--gateway", "lan")
	w.connected("a", "b")
	curl := `curl -sS -m 3 http://198.51.100.1/`
	for _, c := range []struct{ what, box, line, from string }{
		{"the box itself", "a", curl, throughB},
		{"an excluded user", "a", "setpriv --reuid 4242 --clear-groups " + curl, "10.1.0.2"},
		{"an excluded cgroup", "a", "sh -c 'echo $$ >/sys/fs/cgroup/" + group + "/cgroup.procs; exec " + curl + "'", "10.1.0.2"},
		{"another name", "a", "curl -sS -m 3 --resolve other.example:80:198.51.100.1 http://other.example/", throughB},
		{"an excluded name", "a", "curl -sS -m 3 http://www.direct.example/", "10.1.0.2"},
		{"a client of the gateway", "lan", curl, throughB},
	} {
		w.wait(c.what, func(ctx context.Context) error {
			out, err := w.box[c.box].Shell(ctx, c.line)
			if err == nil && !strings.Contains(out, ", "+c.from+":") {
				err = fmt.Errorf("%q, want it from %s", out, c.from)
			}
			return w.alive(p, err)
		})
	}
	m.tapDevice(&m.tap, "a", "wan")
	m.during("gateway, both killed -9", func() {
		p.Kill()
		w.run2("a node").Kill()
		for _, box := range []string{"a", "lan"} {
			if out, err := w.box[box].Shell(t.Context(), "curl -sS -m 1 http://198.51.100.1/"); err == nil {
				t.Errorf("%s still reaches the web: %q", box, out)
			}
		}
	})
	if r := m.rows[0]; r.leaks > 0 {
		t.Errorf("%d packets outside the tunnel: %s", r.leaks, r.what)
	}
	w.checkDoctor("a")
}

// checkDoctor wants the doctor to find what a killed vpn has left, to repair it, and to find nothing after that but the
// kill switch, which stays.
func (w *world) checkDoctor(box string) {
	w.t.Helper()
	find := func(check string) (ok bool, found string) {
		var r struct {
			Checks []struct {
				Check, Found string
				OK           bool
			}
		}
		w.must(w.box[box].SkywireJSON(w.t.Context(), &r, "doctor"))
		for _, c := range r.Checks {
			if c.Check == check {
				return c.OK, c.Found
			}
		}
		return false, "no such check"
	}
	if ok, found := find("vpn leftovers"); ok || !strings.Contains(found, "changes of a killed vpn") {
		w.t.Errorf("leftovers of a killed vpn: %v, %s", ok, found)
	}
	m := &leakMatrix{world: w}
	m.skywire("doctor", "--repair")
	if ok, found := find("vpn leftovers"); !ok {
		w.t.Errorf("after repair: %s", found)
	}
	if ok, found := find("kill switch"); !ok || !strings.Contains(found, "in force") {
		w.t.Errorf("kill switch: %v, %s", ok, found)
	}
	m.skywire("vpn", "release")
	after := w.exec(box, "sh", "-c", "nft list tables; ip rule; ip -6 rule; ip route show table all proto 83; ip -6 route show table all proto 83; ip -o link")
	for _, word := range []string{"skywire", "proto 83", "213"} {
		if strings.Contains(after, word) {
			w.t.Errorf("left behind: %s", after)
		}
	}
}
