package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// nfpm is what makes packages, as the Makefile says.
var nfpmOf = regexp.MustCompile(`(?m)^NFPM\s*:=\s*(.*)$`)

// buildPackage makes a package of the binary under test by a script, which is told more by args.
func buildPackage(t *testing.T, script, version, out string, args ...string) {
	t.Helper()
	bin, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	nfpm := nfpmOf.FindSubmatch(makefile)
	if nfpm == nil {
		t.Fatal("the Makefile does not say what NFPM is")
	}
	c := exec.CommandContext(t.Context(), "../../packaging/"+script, append([]string{version, out, "linux-" + runtime.GOARCH}, args...)...)
	c.Env = append(os.Environ(), "BIN="+bin, "TOOL="+bin, "NFPM="+string(nfpm[1]), "SOURCE_DATE_EPOCH=1700000000")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("packaging/%s %v: %v\n%s", script, args, err, text)
	}
}

// TestE2EDebian installs the package for real, in a copy of this machine that is thrown away, and boots that: systemd starts the
// daemons in their confines, dpkg upgrades them under a flow, removes and purges them.
func TestE2EDebian(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts and a container")
	}
	for _, name := range []string{"systemd-nspawn", "dpkg", "/lib/systemd/systemd"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name, " is missing (apt-get install systemd-sysv systemd-container)")
		}
	}
	t.Parallel()
	dir := t.TempDir()
	buildPackage(t, "build", "0.1.0", dir, "deb")
	root := overlay(t, dir)
	deb := "skywire_0.1.0-1_" + runtime.GOARCH + ".deb"
	copyFile(t, filepath.Join(dir, deb), filepath.Join(root, "old.deb"))
	copyFile(t, "testdata/packages/probe.sh", filepath.Join(root, "probe.sh"))
	for _, d := range []string{"newer", "units"} {
		must(t, os.Mkdir(filepath.Join(root, d), 0o755))
	}
	buildVersion(t, "99.1.0", filepath.Join(root, "newer/skywire"))
	for _, u := range []string{"skywire-update.service", "skywire-update.timer"} {
		copyFile(t, "../../packaging/systemd/update/"+u, filepath.Join(root, "units", u))
	}
	run := func(name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, name, args...)
		c.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "DEBIAN_FRONTEND=noninteractive")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Logf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("chroot", root, "dpkg", "-i", "/old.deb")
	run("chroot", root, "sh", "-c", "dpkg-deb -R /old.deb /new && sed -i 's/^Version: .*/Version: 0.2.0-1/' /new/DEBIAN/control && dpkg-deb -Zgzip -z1 -b /new /new.deb && rm -r /new")
	unit := "[Unit]\nAfter=skywire-node.service\nWants=skywire-node.service\n[Service]\nType=oneshot\nExecStart=/bin/sh /probe.sh\n"
	wants := filepath.Join(root, "etc/systemd/system/probe.target.wants")
	must(t, os.MkdirAll(wants, 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/probe.service"), []byte(unit), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/probe.target"), []byte("[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=probe.service\n"), 0o644))
	resolver := withResolved(t, root, func(args ...string) { run("chroot", append([]string{root}, args...)...) })
	invite, cluster := testInvite(t)
	must(t, os.MkdirAll(filepath.Join(root, "boot/firmware"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "boot/firmware/skywire-join.txt"), []byte(invite+"\r\n"), 0o644)) // as an editor of Windows
	must(t, os.WriteFile(filepath.Join(root, "boot/firmware/skywire-name.txt"), []byte("Attic-Pi\r\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "cluster"), []byte(cluster), 0o644))
	tun := filepath.Join(dir, "tun") // as udev leaves it on a Debian: users may open it
	must(t, unix.Mknod(tun, unix.S_IFCHR, int(unix.Mkdev(10, 200))))
	must(t, os.Chmod(tun, 0o666))
	run("systemd-nspawn", "-q", "-D", root, "--boot", "--register=no", "--keep-unit", "--private-network",
		"--capability=CAP_NET_ADMIN", "--bind="+tun+":/dev/net/tun", "systemd.unit=probe.target")
	log, err := os.ReadFile(filepath.Join(root, "probe.log"))
	if err != nil {
		t.Fatal("the container did not come to the probe: ", err)
	}
	checkProbe(t, string(log), []check{
		{"booted", "active"},
		{"first-boot", "attic-pi 1 0"},
		{"left-cluster", "0"},
		{"user", "skywire"},
		{"state", "skywire 700"},
		{"caps", "0000000000000000"},
		{"status", "1"},
		{"vpn", "active"},
		{"forwarding", "writable"},
		{"messenger", "active answers"},
		{"device", "fd.*/128"},
		{"linked", "1"},
		{"names", resolver},
		{"upgraded", `0 0\.2\.0-1 install ok installed`},
		{"restarted", "yes"},
		{"config", "1"},
		{"vpn-after", "active"},
		{"update-packaged", "5"},
		{"update-bad", "1 1 active"},
		{"update-good", "0 restarted active"},
		{"timer", `success applied 99\.1\.0 active`},
		{"viscript", "active"},
		{"apps", "1"},
		{"removed", "0 0"},
		{"kept", ".*node.key.*"},
		{"purged", "0"},
		{"failed", "0"},
	})
	if left := leftovers(t, filepath.Join(dir, "upper/up")); len(left) > 0 {
		t.Errorf("purged, and still there: %q", left)
	}
	sent, got := count(t, string(log), "asked"), count(t, string(log), "answered")
	t.Logf("%d of %d pings of 50 ms answered over the upgrade", got, sent)
	if sent-got > 40 {
		t.Errorf("an upgrade cut the session for %d ms", (sent-got)*50)
	}
}

// withResolved puts systemd-resolved into root, which .ci/tools has unpacked, and returns what the probe must see of it: that the
// vpn's user, with no right over other processes, has told it who knows .mesh, and over that alone.
func withResolved(t *testing.T, root string, run func(args ...string)) (want string) {
	t.Helper()
	from := "../../build/e2e/resolvers/systemd-resolved"
	_, err := os.Stat(from)
	_, perr := os.Stat("/usr/lib/polkit-1/polkitd")
	if err != nil || perr != nil {
		t.Log("without systemd-resolved or polkitd; .ci/tools fetches them")
		return ".*"
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from+"/.", filepath.Join(root, "usr")).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	run("systemd-sysusers", "systemd-resolve.conf")
	conf := filepath.Join(root, "etc/resolv.conf")
	must(t, os.RemoveAll(conf))
	must(t, os.Symlink("/run/systemd/resolve/stub-resolv.conf", conf))
	must(t, os.WriteFile(filepath.Join(root, "with-resolved"), nil, 0o644))
	return `~mesh.* systemd-resolved 1`
}

// testInvite is an invite to a cluster that is nowhere, and that cluster's key.
func testInvite(t *testing.T) (text, cluster string) {
	t.Helper()
	var keys [2]key.Public
	for i := range keys {
		k, err := key.Generate()
		must(t, err)
		keys[i] = k.Public()
	}
	v, err := member.NewInvite(keys[0], keys[1], []member.Contact{{Key: keys[1], Addr: "udp://192.0.2.1:7667"}})
	must(t, err)
	return v.Text(), keys[0].String()
}

// TestE2EFirstBoot runs what the boot partition is read with, by both small shells: good files are used and taken away, bad ones stay with
// the reason beside them.
func TestE2EFirstBoot(t *testing.T) {
	t.Parallel()
	bin, err := builtBinary()
	must(t, err)
	links := filepath.Join(t.TempDir(), "bin")
	if out, err := exec.CommandContext(t.Context(), bin, "install-links", links).CombinedOutput(); err != nil {
		t.Fatalf("install-links: %v\n%s", err, out)
	}
	invite, cluster := testInvite(t)
	example := string(readFile(t, "../../packaging/config.yaml"))
	for name, c := range map[string]struct {
		files  map[string]string
		left   []string // on the partition
		reason string   // in skywire-error.txt
		config string   // what it holds then
		joined bool
	}{
		"nothing": {nil, nil, "", example, false},
		"all": {
			map[string]string{"skywire.yaml": "node:\r\n  name: x\r\n  listen: [':7777']\r\n", "skywire-name.txt": "Attic\n", "skywire-join": invite},
			nil, "", "node:\n  name: \"attic\"\n  listen: [':7777']\n", true,
		},
		"bad config": {map[string]string{"skywire.yaml": "nodes: {}\n"}, []string{"skywire-error.txt", "skywire.yaml"}, "nodes", example, false},
		"bad name":   {map[string]string{"skywire-name.txt": "$(reboot)"}, []string{"skywire-error.txt", "skywire-name.txt"}, "hyphens", example, false},
		"bad invite": {map[string]string{"skywire-join.txt": "skywire:join?aeaaaaaa"}, []string{"skywire-error.txt", "skywire-join.txt"}, "letter", example, false},
	} {
		for _, shell := range [][]string{{"dash"}, {"busybox", "sh"}} {
			t.Run(name+" "+shell[0], func(t *testing.T) {
				if _, err := exec.LookPath(shell[0]); err != nil {
					t.Skip(shell[0], " is missing")
				}
				dir := t.TempDir()
				boot, state, config := filepath.Join(dir, "boot"), filepath.Join(dir, "state"), filepath.Join(dir, "config.yaml")
				must(t, os.Mkdir(boot, 0o755))
				must(t, os.WriteFile(config, []byte(example), 0o644))
				for name, text := range c.files {
					must(t, os.WriteFile(filepath.Join(boot, name), []byte(text), 0o644))
				}
				cmd := exec.CommandContext(t.Context(), shell[0], append(shell[1:], "../../packaging/first-boot")...)
				cmd.Env = append(os.Environ(), "SKYWIRE_BOOT="+boot, "SKYWIRE_CONFIG="+config, "SKYWIRE_STATE="+state, "SKYWIRE_BIN="+links, "SKYWIRE_RUN="+dir)
				out, err := cmd.CombinedOutput()
				if (err != nil) != (c.reason != "") {
					t.Fatalf("%v\n%s", err, out)
				}
				var left []string
				entries, err := os.ReadDir(boot)
				must(t, err)
				for _, e := range entries {
					left = append(left, e.Name())
				}
				if !slices.Equal(left, c.left) {
					t.Errorf("left on the partition: %q, want %q\n%s", left, c.left, out)
				}
				if c.reason != "" && !strings.Contains(string(readFile(t, filepath.Join(boot, "skywire-error.txt"))), c.reason) {
					t.Errorf("the reason is %q, want %q in it", readFile(t, filepath.Join(boot, "skywire-error.txt")), c.reason)
				}
				if got := string(readFile(t, config)); got != c.config {
					t.Errorf("config.yaml:\n%s\nwant\n%s", got, c.config)
				}
				text, err := os.ReadFile(filepath.Join(state, "cluster.json"))
				if joined := err == nil && strings.Contains(string(text), cluster); joined != c.joined {
					t.Errorf("joined %v, want %v: %s", joined, c.joined, text)
				}
			})
		}
	}
}

// leftovers are the files of ours that somebody made and nobody took away.
func leftovers(t *testing.T, upper string) (left []string) {
	t.Helper()
	must(t, filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, upper)
		if strings.HasPrefix(name, "/var/log") || d.Type()&fs.ModeCharDevice != 0 { // journals, and what is marked as gone
			return nil
		}
		if strings.Contains(d.Name(), "skywire") || strings.Contains(d.Name(), "viscript") {
			left = append(left, name)
		}
		return nil
	}))
	return left
}

// check is a line of what the probe saw, and what it must match.
type check struct{ name, want string }

func checkProbe(t *testing.T, log string, checks []check) {
	t.Helper()
	for _, c := range checks {
		got := probed(log, c.name)
		if ok, err := regexp.MatchString("^(?:"+c.want+")$", got); !ok || err != nil {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}

func probed(log, name string) string {
	for l := range strings.Lines(log) {
		if v, ok := strings.CutPrefix(l, name+": "); ok {
			return strings.TrimSuffix(v, "\n")
		}
	}
	return "not there"
}

func count(t *testing.T, log, name string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(probed(log, name)))
	if err != nil {
		t.Error(name, ": ", err)
	}
	return n
}

// overlay is a copy of this machine's root that can be written and goes away.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	upper, root := filepath.Join(dir, "upper"), filepath.Join(dir, "root")
	must(t, os.MkdirAll(root, 0o755))
	must(t, os.MkdirAll(upper, 0o755))
	must(t, unix.Mount("tmpfs", upper, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() { _ = unix.Unmount(upper, unix.MNT_DETACH) })
	must(t, os.Mkdir(filepath.Join(upper, "up"), 0o755))
	must(t, os.Mkdir(filepath.Join(upper, "work"), 0o755))
	must(t, unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+"/up,workdir="+upper+"/work"))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	for _, left := range []string{"var/lib/skywire", "etc/skywire"} { // of this machine
		must(t, os.RemoveAll(filepath.Join(root, left)))
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o644))
}

// TestE2EOpenWrtPackages looks at what opkg and apk would get: formats, owners, the name of the architecture, what must be where.
func TestE2EOpenWrtPackages(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("names the architecture of amd64")
	}
	t.Parallel()
	dir := t.TempDir()
	buildPackage(t, "openwrt/build", "0.1.0", dir)
	ipk := untar(t, readFile(t, filepath.Join(dir, "skywire_0.1.0-1_x86_64.ipk")))
	if got := string(ipk["debian-binary"].body); got != "2.0\n" {
		t.Errorf("debian-binary %q", got)
	}
	control := untar(t, ipk["control.tar.gz"].body)
	for _, want := range []string{"Package: skywire\n", "Version: 0.1.0-1\n", "Architecture: x86_64\n", "Depends: kmod-tun\n"} {
		if got := string(control["control"].body); !strings.Contains(got, want) {
			t.Errorf("control lacks %q:\n%s", want, got)
		}
	}
	if got := string(control["conffiles"].body); got != "/etc/config/skywire\n" {
		t.Errorf("conffiles %q", got)
	}
	apk := untar(t, readFile(t, filepath.Join(dir, "skywire-0.1.0-r1_x86_64.apk")))
	if got := string(apk[".PKGINFO"].body); !strings.Contains(got, "arch = x86_64\n") || !strings.Contains(got, "pkgver = 0.1.0-r1\n") {
		t.Errorf(".PKGINFO:\n%s", got)
	}
	list := string(apk["lib/apk/packages/skywire.list"].body)
	for what, all := range map[string]map[string]file{"ipk": untar(t, ipk["data.tar.gz"].body), "apk": apk} {
		for name, mode := range map[string]int64{
			"usr/bin/skywire": 0o755, "etc/init.d/skywire": 0o755, "etc/init.d/skywire-killswitch": 0o755, "etc/uci-defaults/80_skywire": 0o755,
			"etc/config/skywire": 0o600, "lib/upgrade/keep.d/skywire": 0o644, "usr/share/skywire/render.sh": 0o644, "usr/bin/skywire-node": -1,
		} {
			f, ok := all[name]
			switch {
			case !ok:
				t.Errorf("%s: no %s", what, name)
			case mode == -1 && f.Linkname != "skywire":
				t.Errorf("%s: %s leads to %q", what, name, f.Linkname)
			case mode != -1 && f.Mode&0o777 != mode:
				t.Errorf("%s: %s has mode %o", what, name, f.Mode)
			}
			if f.Uid != 0 || f.Gid != 0 {
				t.Errorf("%s: %s belongs to %d:%d", what, name, f.Uid, f.Gid)
			}
			if !strings.Contains(list, "/"+name+"\n") {
				t.Errorf("the list of apk lacks %s", name)
			}
		}
		if _, ok := all["usr/bin/node"]; ok {
			t.Errorf("%s: /usr/bin/node belongs to Node.js", what)
		}
	}
}

// file is an entry of an archive.
type file struct {
	tar.Header
	body []byte
}

// untar reads an archive of possibly several segments, by name without a leading "./".
func untar(t *testing.T, packed []byte) map[string]file {
	t.Helper()
	all := map[string]file{}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	plain, err := io.ReadAll(z)
	must(t, err)
	r := tar.NewReader(bytes.NewReader(plain))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		body, err := io.ReadAll(r)
		must(t, err)
		all[strings.TrimPrefix(h.Name, "./")] = file{*h, body}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}
