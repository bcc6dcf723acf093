package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2EOpenWrtRAM: an invite in UCI makes a router with option ram a member; while it runs flash is not written, and after a power cut
// it is the same member, without an invite.
func TestE2EOpenWrtRAM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "flash")
	w.boxes("home")
	const uci = "config globals 'globals'\n\toption enabled '1'\n\toption ram '1'\n\nconfig node 'node'\n\toption no_lan '1'\n\toption join 'INVITE'\n"
	r := newRouter(t, w, "router", uci)
	w.must(w.lab.Wire(w.end("home", "lan", "10.9.0.2/24"), w.end("router", "wan", "10.9.0.1/24")))
	w.node("home", "--no-lan")
	w.found("home")
	r.write("uci/skywire", strings.Replace(uci, "INVITE", w.invite("home", "--addr", "10.9.0.2:"+meshPort, "--name", "attic"), 1))
	start := func() {
		t.Helper()
		if out, err := r.script(t.Context(), "start"); err != nil {
			t.Fatalf("start: %v: %s", err, out)
		}
		r.wait("a member", func(ctx context.Context) error {
			out, err := r.skywire(ctx, "node", "membership", "--json")
			if err == nil && !strings.Contains(out, `"state": "member"`) {
				err = fmt.Errorf("no member: %s", out)
			}
			return err
		})
	}
	start()
	if text := r.read("uci/skywire"); strings.Contains(text, "skywire:join") {
		t.Errorf("the invite is still there:\n%s", text)
	}
	w.reachName("home", "attic")
	key, err := r.skywire(t.Context(), "node", "id")
	must(t, err)

	// While it runs: the store in memory changes every five seconds at first, flash does not.
	before := r.flash()
	changed := fileTime(t, r.root+"/var/run/skywire-state/node.db")
	r.wait("the node saves", func(ctx context.Context) error {
		if _, err := w.box["home"].Skywire(ctx, "node", "ping", "-c", "5", "-i", "0.1", "attic"); err != nil {
			return err
		}
		if now := fileTime(t, r.root+"/var/run/skywire-state/node.db"); now.Equal(changed) {
			return fmt.Errorf("the last time at %v", now)
		}
		return nil
	})
	if now := r.flash(); now != before {
		t.Errorf("flash was written while the node ran:\n%s\nbefore:\n%s", now, before)
	}

	// A save, as soon after the start or once a day, and a power cut.
	if out, err := r.script(t.Context(), "save"); err != nil || r.flash() == before {
		t.Fatalf("save: %v %s", err, out)
	}
	for _, instance := range []string{"node.pid.keeper", "keep.pid.keeper", "node.pid", "keep.pid"} {
		pid := r.pid(instance)
		if pid <= 1 {
			t.Fatalf("%s does not run", instance)
		}
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	must(t, os.RemoveAll(r.root+"/var"))
	start()
	if now, err := r.skywire(t.Context(), "node", "id"); now != key || err != nil {
		t.Errorf("after a power cut it is %s %v, before %s", now, err, key)
	}
	w.reachName("home", "attic")
}

// flash is what lies in the folder that stands for flash: names, sizes, times.
func (r *router) flash() (all string) {
	entries, err := os.ReadDir(r.root + "/etc/skywire")
	must(r.owrt.t, err)
	for _, e := range entries {
		i, err := e.Info()
		must(r.owrt.t, err)
		all += fmt.Sprintln(e.Name(), i.Size(), i.ModTime())
	}
	return all
}

func fileTime(t *testing.T, path string) time.Time {
	t.Helper()
	i, err := os.Stat(path)
	must(t, err)
	return i.ModTime()
}

// TestE2EOpenWrtDNS: what uci-defaults tells dnsmasq keeps names of the mesh from the provider while no vpn runs, and finds them, private
// addresses as they are, while one does.
func TestE2EOpenWrtDNS(t *testing.T) {
	t.Parallel()
	w := newDNSWorld(t, "dnsuci", "")
	w.dnsmasq()
	w.sh(`printf 'log-queries\nlog-facility=/run/asked\n' >>/run/dnsmasq.conf; /etc/init.d/dnsmasq restart`)
	w.resolves("where.test", whereBefore)
	outside := func(name string) bool {
		t.Helper()
		_, _ = w.box["me"].Exec(t.Context(), "dig", "@127.0.0.1", "+time=1", "+tries=1", name)
		return strings.Contains(w.exec("me", "cat", "/run/asked"), "forwarded "+name+" to 10.1.0.1")
	}
	if !outside("before.mesh") {
		t.Error("names of the mesh stay inside without any setting: the test shows nothing")
	}
	o := newOwrt(t, "")
	o.write("db", "dhcp.@dnsmasq[0]=dnsmasq\n")
	o.uci()("skywire.defaults")
	// OpenWrt's dnsmasq script turns list server and list rebind_domain into these.
	conf := ""
	for line := range strings.Lines(o.read("db")) {
		if v, ok := strings.CutPrefix(line, "dhcp.@dnsmasq[0].server="); ok {
			conf += "server=" + v
		}
		if v, ok := strings.CutPrefix(line, "dhcp.@dnsmasq[0].rebind_domain="); ok {
			conf += "rebind-domain-ok=" + v
		}
	}
	w.sh("cat >>/run/dnsmasq.conf <<X\n" + conf + "X\n/etc/init.d/dnsmasq restart")
	w.resolves("where.test", whereBefore)
	if outside("without.mesh") {
		t.Error("the provider was asked for a name of the mesh")
	}
	p := w.start("me", "vpn", "vpn", "up")
	w.resolves("exit.mesh", w.address("exit"))
	w.resolves("where.test", whereBefore)
	p.Kill()
	w.resolves("where.test", whereBefore)
	if outside("after.mesh") {
		t.Error("the provider was asked for a name of the mesh after the vpn was killed")
	}
}

// upgradeWithin is how long an upgrade may cut the vpn: the node's new start, and two seconds if the vpn was there before it.
const upgradeWithin = 4 * time.Second

// TestE2EOpenWrtUpgrade: a new stamp starts node and vpn again, both at once, under a flow of pings.
func TestE2EOpenWrtUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "stamp")
	w.boxes("home")
	r := newRouter(t, w, "router", "config globals 'globals'\n\toption enabled '1'\n\nconfig node 'node'\n\toption no_lan '1'\n\toption open '1'\n\tlist peers '"+
		w.peer("home", "10.9.0.2")+"'\n\nconfig vpn 'vpn'\n\toption enabled '1'\n")
	w.must(w.lab.Wire(w.end("home", "lan", "10.9.0.2/24"), w.end("router", "wan", "10.9.0.1/24")))
	w.node("home", "--no-lan")
	w.vpnUp("home")
	stamp := func(version string) { r.write("share/stamp", version+"\n") }
	stamp("0.1.0")
	start := func() {
		t.Helper()
		if out, err := r.script(t.Context(), "start"); err != nil {
			t.Fatalf("start: %v: %s", err, out)
		}
	}
	start()
	w.pings("router", w.address("home"))
	before := []int{r.pid("node.pid"), r.pid("vpn.pid")}
	start()
	if now := []int{r.pid("node.pid"), r.pid("vpn.pid")}; !slices.Equal(now, before) {
		t.Errorf("processes %v, and after a start without news %v", before, now)
	}
	ping, err := w.box["router"].Start("ping", "ping", "-D", "-i", "0.1", w.address("home"))
	w.must(err)
	answers := func(n int) {
		t.Helper()
		seen := strings.Count(ping.Output(), "time=")
		w.wait("answers to ping", func(context.Context) error {
			if now := strings.Count(ping.Output(), "time="); now < seen+n {
				return fmt.Errorf("%d, want %d: %s", now, seen+n, ping.Tail(2))
			}
			return nil
		})
	}
	answers(5)
	last := lastAnswer(t, ping.Output())
	stamp("0.2.0")
	start()
	w.wait("both are new", func(context.Context) error {
		if n, v := r.pid("node.pid"), r.pid("vpn.pid"); n == 0 || v == 0 || n == before[0] || v == before[1] {
			return fmt.Errorf("%d and %d, before %v", n, v, before)
		}
		return nil
	})
	answers(10)
	gap := longestGap(t, ping.Output(), last)
	ping.Kill()
	t.Logf("an upgrade cut the vpn for %v", gap)
	if gap > upgradeWithin {
		t.Errorf("an upgrade cut the vpn for %v, want at most %v", gap, upgradeWithin)
	}
}

// longestGap is the longest time between two answers from one on.
func longestGap(t *testing.T, output string, from time.Time) (longest time.Duration) {
	t.Helper()
	at := from
	for line := range strings.Lines(output) {
		if !strings.Contains(line, "time=") {
			continue
		}
		now := lastAnswer(t, line)
		if now.After(at) {
			longest, at = max(longest, now.Sub(at)), now
		}
	}
	return longest
}
