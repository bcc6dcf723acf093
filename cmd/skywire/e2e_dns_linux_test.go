package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// dnsCase is one row of the matrix: a box that resolves names in one way.
type dnsCase struct {
	name    string
	backend string // as vpn status calls it
	setup   func(w *dnsWorld)
	// unpacked is what .ci/tools unpacked and the box needs in its /usr.
	unpacked string
}

// The names of the world: where.test tells which resolver was asked. Nothing is sent to these; dnsmasq would take those
// meant for documents as an attack.
const (
	whereBefore = "11.0.0.1" // the box's own, before any vpn
	whereExit   = "11.0.0.2" // the exit's
)

// dnsWorld is a box "me" with an /etc, a /usr and a /run of its own, an exit, and between them "net" with their resolvers.
type dnsWorld struct {
	*world
	snapshots string // a shell line that shows all there is to be restored
}

// TestE2EDNS: for each way in which a box resolves names: names of the mesh resolve, others keep resolving with the vpn up,
// after kill -9 of the vpn, of the node and of both, and everything is as before at the end, and at the next start after a kill
// and after a power cut.
func TestE2EDNS(t *testing.T) {
	t.Parallel()
	for _, c := range []dnsCase{
		{"file", "resolv.conf", (*dnsWorld).plainFile, ""},
		{"link", "resolv.conf", (*dnsWorld).linkedFile, ""},
		{"mounted", "resolv.conf", (*dnsWorld).mountedFile, ""},
		{"dnsmasq", "dnsmasq", (*dnsWorld).dnsmasq, ""},
		{"openresolv", "resolv.conf", (*dnsWorld).openresolv, "openresolv"},
		{"resolved", "systemd-resolved", (*dnsWorld).resolved, "systemd-resolved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newDNSWorld(t, "dns"+c.name, c.unpacked)
			c.setup(w)
			w.resolves("where.test", whereBefore)
			before := w.snapshot()
			w.systemMode(c)
			w.exitMode(before)
			w.repaired(before)
			w.restored(before)
		})
	}
}

// systemMode: names of the mesh beside those of before.
func (w *dnsWorld) systemMode(c dnsCase) {
	w.t.Helper()
	p := w.start("me", "vpn", "vpn", "up")
	w.resolves("exit.mesh", w.address("exit"))
	w.resolves("where.test", whereBefore)
	if out := w.exec("me", "getent", "hosts", w.address("exit")); !strings.Contains(out, "exit.mesh") {
		w.t.Errorf("the name of %s is %q", w.address("exit"), out)
	}
	var s struct {
		DNS struct{ Backend, Error string }
	}
	w.must(w.box["me"].SkywireJSON(w.t.Context(), &s, "vpn", "status"))
	if s.DNS.Backend != c.backend || s.DNS.Error != "" {
		w.t.Errorf("%+v, want %s", s.DNS, c.backend)
	}
	if out, err := w.box["me"].Exec(w.t.Context(), "getent", "hosts", "nobody.mesh"); err == nil {
		w.t.Errorf("nobody.mesh is %q", out)
	}
	p.Kill()
	w.resolves("where.test", whereBefore)
	w.run["me node"].Kill()
	w.resolves("where.test", whereBefore)
	w.node("me", "--no-lan", "--peer", w.peer("exit", "10.2.0.2"))
	w.reach("me", "exit")
}

// exitMode: every other name from the exit's resolver; what a kill -9 leaves, the next start takes up.
func (w *dnsWorld) exitMode(before string) {
	w.t.Helper()
	p := w.start("me", "vpn", "vpn", "client", "--server", "exit.mesh", "--exit")
	w.resolves("where.test", whereExit)
	w.resolves("exit.mesh", w.address("exit"))
	if w.snapshot() == before {
		w.t.Error("nothing was changed in exit mode")
	}
	p.Kill()
	if out, err := w.box["me"].Skywire(w.t.Context(), "doctor"); !strings.Contains(out, "settings of the resolver by a vpn that is gone") {
		w.t.Errorf("doctor sees nothing left: %v\n%s", err, out)
	}
	_, _ = w.box["me"].Skywire(w.t.Context(), "doctor", "--repair") // its status is that of the checks
	w.snapshotIs(before)
	p = w.start("me", "vpn", "vpn", "client", "--server", "exit.mesh", "--exit")
	w.resolves("where.test", whereExit)
	p.Kill()
}

// repaired: after a power cut nothing is left but files, of which the next start takes ours back.
func (w *dnsWorld) repaired(before string) {
	w.t.Helper()
	w.run["me node"].Kill()
	w.must(os.Remove(filepath.Join(w.box["me"].Run(), "dns-skywire0.journal")))
	w.node("me", "--no-lan", "--peer", w.peer("exit", "10.2.0.2"))
	p := w.start("me", "vpn", "vpn", "up", "--dns", "off")
	w.snapshotIs(before)
	w.resolves("where.test", whereBefore)
	w.must(p.Stop(10 * time.Second))
}

// restored: a vpn that ends leaves nothing; what somebody else wrote meanwhile stays.
func (w *dnsWorld) restored(before string) {
	w.t.Helper()
	p := w.start("me", "vpn", "vpn", "client", "--server", "exit.mesh", "--exit")
	w.resolves("where.test", whereExit)
	w.must(p.Stop(20 * time.Second))
	w.snapshotIs(before)
	w.resolves("where.test", whereBefore)
}

// newDNSWorld starts everything but me's resolver.
func newDNSWorld(t *testing.T, name, resolver string) *dnsWorld {
	w := &dnsWorld{world: newWorld(t, name), snapshots: "ls -l /etc/resolv.conf | cut -d' ' -f1,9-; cat /etc/resolv.conf"}
	w.boxes("me", "exit")
	w.plain("net")
	w.must(
		w.lab.Wire(w.end("me", "eth0", "10.1.0.2/24"), w.end("net", "me", "10.1.0.1/24")),
		w.lab.Wire(w.end("exit", "eth0", "10.2.0.2/24"), w.end("net", "exit", "10.2.0.1/24")),
		w.box["net"].Forward(), w.box["me"].IP("route add default via 10.1.0.1"), w.box["exit"].IP("route add default via 10.2.0.1"),
		w.box["exit"].WriteEtc("resolv.conf", "nameserver 10.2.0.1\n"))
	w.nameServer("net", "10.1.0.1", whereBefore)
	w.nameServer("net", "10.2.0.1", whereExit)
	w.ownRoot("me", resolver)
	w.node("exit", "--no-lan")
	w.node("me", "--no-lan", "--peer", w.peer("exit", "10.2.0.2"))
	w.exec("me", w.binary(), "node", "petname", "add", "exit", w.key["exit"])
	w.start("exit", "vpn", "vpn", "server", "--exit", "--allow", "any", "--dns", "off")
	w.reach("me", "exit")
	return w
}

func (w *dnsWorld) binary() string {
	path, err := builtBinary()
	w.must(err)
	return path
}

// nameServer starts a real one that knows where.test.
func (w *dnsWorld) nameServer(box, at, where string) {
	w.t.Helper()
	_, err := w.box[box].Start("dnsmasq "+at, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root",
		"--no-resolv", "--no-hosts", "--bind-interfaces", "--except-interface=lo", "--listen-address="+at, "--address=/where.test/"+where)
	w.must(err)
}

// ownRoot gives a box an /etc and a /usr that it can write to, over the machine's, and a /run of its own, for all programs
// that are started in it from now on. /usr has a resolver that .ci/tools unpacked, if one is named.
func (w *dnsWorld) ownRoot(box, resolver string) {
	w.t.Helper()
	usr := "/usr"
	if resolver != "" {
		path, err := filepath.Abs("../../build/e2e/resolvers/" + resolver)
		w.must(err)
		if _, err := os.Stat(path); err != nil {
			w.t.Skip("no " + resolver + ": run .ci/tools test")
		}
		usr = path + ":/usr"
	}
	dir := filepath.Join(w.box[box].Dir, "root")
	script := fmt.Sprintf(`set -e
mkdir -p %[1]s; mount -t tmpfs tmpfs %[1]s
mkdir %[1]s/etc %[1]s/etcw %[1]s/none
umount /etc/resolv.conf
mount -t overlay overlay -o lowerdir=/etc,upperdir=%[1]s/etc,workdir=%[1]s/etcw /etc
mount -t overlay overlay -o lowerdir=%[2]s:%[1]s/none /usr
mount -t tmpfs tmpfs /run
rm -f /etc/resolv.conf
echo nameserver 10.1.0.1 >/etc/resolv.conf
touch /run/ready
exec sleep 1000`, dir, usr)
	p, err := w.box[box].Start("root", "unshare", "-m", "sh", "-c", script)
	w.must(err)
	w.box[box].Wrap("nsenter", "-m", "-t", fmt.Sprint(p.PID()))
	w.wait("own root of "+box, func(ctx context.Context) error {
		_, err := w.box[box].Exec(ctx, "test", "-e", "/run/ready")
		return w.alive(p, err)
	})
}

// resolves waits until a program of the box, by its libc, finds an address for a name.
func (w *dnsWorld) resolves(name, want string) {
	w.t.Helper()
	family := "ahostsv4"
	if strings.Contains(want, ":") {
		family = "ahostsv6"
	}
	w.wait(name+" is "+want, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		out, err := w.box["me"].Exec(ctx, "getent", family, name)
		if err == nil && !strings.HasPrefix(out, want+" ") {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
}

func (w *dnsWorld) snapshot() string {
	w.t.Helper()
	return w.exec("me", "sh", "-c", w.snapshots)
}

func (w *dnsWorld) snapshotIs(want string) {
	w.t.Helper()
	w.wait("the resolver as before", func(ctx context.Context) error {
		if got, err := w.box["me"].Shell(ctx, w.snapshots); err != nil || got != want {
			return fmt.Errorf("%w: got\n%s\nwant\n%s", err, got, want)
		}
		return nil
	})
}

func (w *dnsWorld) sh(line string) {
	w.t.Helper()
	w.exec("me", "sh", "-ec", line)
}

func (w *dnsWorld) plainFile() {
	w.sh(`printf '# of the administrator\nsearch home.test\nnameserver 10.1.0.1\noptions rotate timeout:2\n' >/etc/resolv.conf`)
}

func (w *dnsWorld) linkedFile() {
	w.sh(`mkdir /run/net; echo nameserver 10.1.0.1 >/run/net/resolv.conf; ln -sf ../run/net/resolv.conf /etc/resolv.conf`)
	w.snapshots += "; ls -A /run/net"
}

// mountedFile is what containers have: nothing can be moved over it.
func (w *dnsWorld) mountedFile() {
	w.sh(`echo nameserver 10.1.0.1 >/run/outer; mount --bind /run/outer /etc/resolv.conf`)
}

// dnsmasq is OpenWrt's way: a folder in memory, a script that starts dnsmasq again, and protection against rebinding.
func (w *dnsWorld) dnsmasq() {
	w.sh(`mkdir -p /run/dnsmasq.d /etc/init.d
cat >/run/dnsmasq.conf <<X
conf-dir=/run/dnsmasq.d
resolv-file=/run/upstream
stop-dns-rebind
bogus-priv
domain-needed
listen-address=127.0.0.1
bind-interfaces
user=root
pid-file=/run/dnsmasq.pid
X
cat >/etc/init.d/dnsmasq <<X
#!/bin/sh
pid=\$(cat /run/dnsmasq.pid)
[ "\$1" = start ] || { kill \$pid; while grep -qs "State:.[^Z]" /proc/\$pid/status; do sleep 0.05; done; }
dnsmasq -C /run/dnsmasq.conf >/dev/null 2>&1 </dev/null
X
chmod +x /etc/init.d/dnsmasq
echo nameserver 10.1.0.1 >/run/upstream
echo nameserver 127.0.0.1 >/etc/resolv.conf
/etc/init.d/dnsmasq start`)
	w.snapshots += "; ls /run/dnsmasq.d"
	w.t.Cleanup(func() { _, _ = w.box["me"].Shell(context.Background(), "kill -9 $(cat /run/dnsmasq.pid)") })
}

func (w *dnsWorld) openresolv() {
	w.sh(`touch /etc/resolvconf.conf; rm -f /etc/resolv.conf; echo nameserver 10.1.0.1 | resolvconf -a eth0.dhcp`)
	w.snapshots += "; resolvconf -L 2>/dev/null || resolvconf -l"
}

func (w *dnsWorld) resolved() {
	w.sh(`echo systemd-resolve:x:990:990::/:/usr/sbin/nologin >>/etc/passwd
echo systemd-resolve:x:990: >>/etc/group
mkdir -p /run/dbus /run/systemd/resolve /etc/systemd
chown systemd-resolve:systemd-resolve /run/systemd/resolve
printf '[Resolve]\nDNS=10.1.0.1\nFallbackDNS=\nMulticastDNS=no\nLLMNR=no\nDNSSEC=no\n' >/etc/systemd/resolved.conf
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf`)
	// Never the bus of the machine.
	w.box["me"].Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket")
	w.daemon("dbus-daemon", "--system", "--nofork", "--nopidfile")
	w.wait("the bus", func(ctx context.Context) error {
		_, err := w.box["me"].Exec(ctx, "test", "-S", "/run/dbus/system_bus_socket")
		return err
	})
	w.daemon("/usr/lib/systemd/systemd-resolved")
	w.snapshots += "; (resolvectl dns; resolvectl domain) | grep -v 'eth0\\|(skywire0):$'"
	w.wait("resolved", func(ctx context.Context) error {
		_, err := w.box["me"].Exec(ctx, "resolvectl", "dns")
		return err
	})
}

func (w *dnsWorld) daemon(words ...string) *lab.Process {
	w.t.Helper()
	p, err := w.box["me"].Start(filepath.Base(words[0]), words[0], words[1:]...)
	w.must(err)
	w.t.Cleanup(func() { p.Signal(syscall.SIGKILL) })
	return p
}
