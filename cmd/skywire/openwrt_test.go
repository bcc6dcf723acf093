//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// owrt is a box of OpenWrt as far as its init script sees one: a folder, UCI's file, and stand-ins for what is around it.
type owrt struct {
	t             *testing.T
	busybox, root string
	files         string
	env           []string
}

// newOwrt makes a box with a file of UCI. Its programs only write down what they are asked.
func newOwrt(t *testing.T, uci string) *owrt {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox (apt-get install busybox-static)")
	}
	files, err := filepath.Abs("../../packaging/openwrt/files")
	must(t, err)
	o := &owrt{t: t, busybox: busybox, root: t.TempDir(), files: files}
	for _, dir := range []string{"uci", "bin", "etc/skywire", "boot"} {
		must(t, os.MkdirAll(filepath.Join(o.root, dir), 0o755))
	}
	uci = strings.ReplaceAll(uci, "'/etc/skywire'", "'"+o.root+"/etc/skywire'")
	must(t, os.WriteFile(filepath.Join(o.root, "uci/skywire"), []byte(uci), 0o600))
	o.program("skywire", `echo "$*" >>`+o.root+"/asked\n")
	o.env = append(os.Environ(), "ROOT="+o.root, "UCI_DIR="+o.root+"/uci", "SHARE="+files, "PROGRAMS="+o.root+"/bin")
	return o
}

// program makes a program of the box out of lines of sh.
func (o *owrt) program(name, lines string) {
	o.t.Helper()
	must(o.t, os.WriteFile(filepath.Join(o.root, "bin", name), []byte("#!/bin/sh\n"+lines), 0o755))
}

// init runs an action of the init script under busybox and returns what it said to procd and to people.
func (o *owrt) init(action string) string {
	o.t.Helper()
	c := exec.CommandContext(o.t.Context(), o.busybox, "sh", "testdata/openwrt/shim.sh", o.files+"/skywire.init", action)
	c.Env = o.env
	out, err := c.CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", action, err, out)
	}
	return string(out)
}

// read is a file of the box; none is "".
func (o *owrt) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(o.root, name))
	return string(b)
}

func (o *owrt) write(name, text string) {
	o.t.Helper()
	path := filepath.Join(o.root, name)
	must(o.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(o.t, os.WriteFile(path, []byte(text), 0o600))
}

// TestOpenWrtInit turns a file of UCI into config.yaml and instances of procd.
func TestOpenWrtInit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/openwrt/cases/box.uci")
	must(t, err)
	o := newOwrt(t, string(text))
	procd := o.init("start")
	for name, got := range map[string]string{"box.procd": procd, "box.yaml": o.read("var/etc/skywire.yaml")} {
		want, err := os.ReadFile("testdata/openwrt/cases/" + name)
		must(t, err)
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
	if got := o.init("triggers"); got != "trigger skywire\ntrigger interface.*.up 3000 /etc/init.d/skywire reload\n" {
		t.Errorf("triggers: %q", got)
	}
	// What one daemon reads is started again alone.
	parts := func() map[string]string {
		all := map[string]string{}
		for _, name := range []string{"node", "manager", "vpn", "socks_client", "viscript"} {
			all[name] = o.read("var/etc/skywire.d/" + name)
		}
		return all
	}
	before := parts()
	o.write("uci/skywire", strings.Replace(string(text), "option mtu '1380'", "option mtu '1280'", 1))
	if again := o.init("start"); again != procd {
		t.Errorf("a second start asks for something else:\n%s", again)
	}
	for name, now := range parts() {
		if (now != before[name]) != (name == "vpn") {
			t.Errorf("the mtu of the vpn changed, and %s reads\n%s", name, now)
		}
	}
	// As shipped: off, so nothing is started.
	text, err = os.ReadFile(o.files + "/skywire.config")
	must(t, err)
	o = newOwrt(t, string(text))
	if procd, yaml := o.init("start"), o.read("var/etc/skywire.yaml"); procd != "" || yaml != "" {
		t.Errorf("the shipped file starts something: %s%s", procd, yaml)
	}
}

// TestOpenWrtConfig gives what the init script makes of the shipped file, all of it switched on, to the programs' own check.
func TestOpenWrtConfig(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/openwrt/cases/box.uci")
	must(t, err)
	o := newOwrt(t, string(text))
	o.init("start")
	bin, err := builtBinary()
	must(t, err)
	out, err := exec.CommandContext(t.Context(), bin, "viscript", "config", "check", filepath.Join(o.root, "var/etc/skywire.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOpenWrtJoin leaves an invite in UCI and in a file: the node gets it by its stdin, and then it is gone; one that is not taken stays.
func TestOpenWrtJoin(t *testing.T) {
	t.Parallel()
	const uci = "config globals 'globals'\n\toption enabled '1'\n\nconfig node 'node'\n\toption join 'skywire:join?a=b'\n\toption name 'attic'\n"
	takes := `echo "$*" >>$ROOT/asked; [ "$2" != join ] || cat >>$ROOT/invites; `
	for _, c := range []struct {
		name, answer, left string
	}{
		{"not running, or member at once", "exit 0", ""},
		{"tries", "echo 'node: not a member yet (joining: ); the node goes on trying'; exit 1", ""},
		{"no invite", "echo 'node: no invite'; exit 2", "skywire:join?a=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOwrt(t, uci)
			o.program("skywire", takes+c.answer)
			o.write("etc/skywire/join", "skywire:join?c=d\r\n# of the attic\n")
			said := o.init("start")
			if got, want := o.read("invites"), "skywire:join?a=b\nskywire:join?c=d\n"; got != want {
				t.Errorf("the node got %q, want %q", got, want)
			}
			if strings.Contains(o.read("asked"), "skywire:") {
				t.Errorf("everybody sees it in the arguments: %s", o.read("asked"))
			}
			if strings.Contains(o.read("var/etc/skywire.yaml"), "skywire:join") {
				t.Error("it is in config.yaml")
			}
			gone := !strings.Contains(o.read("uci/skywire"), "skywire:join") && o.read("etc/skywire/join") == ""
			if gone != (c.left == "") {
				t.Errorf("left: %q and %q", o.read("uci/skywire"), o.read("etc/skywire/join"))
			}
			if c.left == "" && (o.read("committed") != "skywire\n" || !strings.Contains(o.read("uci/skywire"), "option name 'attic'")) {
				t.Errorf("UCI: %q, committed %q", o.read("uci/skywire"), o.read("committed"))
			}
			if logged := strings.Contains(said, "no invite"); logged != (c.left != "") {
				t.Errorf("log: %s", said)
			}
		})
	}
}

// TestOpenWrtRAM: with option ram the node's state is in memory while it runs; flash is written when it ends or is asked to, only where
// something differs, and what the vpn keeps is in flash at all times.
func TestOpenWrtRAM(t *testing.T) {
	t.Parallel()
	const (
		uci = "config globals 'globals'\n\toption enabled '1'\n\toption ram '1'\n\nconfig vpn 'vpn'\n\toption enabled '1'\n"
		ram = "var/run/skywire-state/"
	)
	o := newOwrt(t, uci)
	o.program("skywire", `case "$1 $2" in "node id") [ -e "$4/node.key" ] || echo key >"$4/node.key" ;; esac`)
	o.write("etc/skywire/node.db", "one")
	o.write("etc/skywire/cluster.json", "cluster")
	o.write("etc/skywire/vpn-killswitch.json", "locked")
	procd := o.init("start")
	for instance, where := range map[string]string{"node": "/var/run/skywire-state", "vpn": "/etc/skywire", "keep": ""} {
		_, after, ok := strings.Cut(procd, "instance "+instance+"\n")
		own, _, _ := strings.Cut(after, "instance ")
		if !ok || !strings.Contains(own, "SKYWIRE_STATE="+where) {
			t.Errorf("%s:\n%s", instance, own)
		}
	}
	if o.read(ram+"node.db") != "one" || o.read(ram+"node.key") != "key\n" || o.read("etc/skywire/node.key") != "key\n" || o.read(ram+"vpn-killswitch.json") != "" {
		t.Errorf("in memory: %q, %q, and the vpn's %q", o.read(ram+"node.db"), o.read(ram+"node.key"), o.read(ram+"vpn-killswitch.json"))
	}
	key, err := os.Stat(filepath.Join(o.root, "etc/skywire/node.key"))
	must(t, err)
	o.write(ram+"node.db", "two")
	must(t, os.Remove(filepath.Join(o.root, ram, "cluster.json")))
	if o.init("start"); o.read(ram+"node.db") != "two" || o.read("etc/skywire/node.db") != "one" {
		t.Errorf("started again: %q in memory, %q in flash", o.read(ram+"node.db"), o.read("etc/skywire/node.db"))
	}
	o.init("save")
	if o.read("etc/skywire/node.db") != "two" || o.read("etc/skywire/cluster.json") != "" || o.read("etc/skywire/vpn-killswitch.json") != "locked" {
		t.Errorf("saved: %q, %q, %q", o.read("etc/skywire/node.db"), o.read("etc/skywire/cluster.json"), o.read("etc/skywire/vpn-killswitch.json"))
	}
	if now, err := os.Stat(filepath.Join(o.root, "etc/skywire/node.key")); err != nil || !os.SameFile(key, now) || !now.ModTime().Equal(key.ModTime()) {
		t.Errorf("what had not changed was written: %v", err)
	}
	o.write(ram+"node.db", "three")
	if o.init("stopped"); o.read("etc/skywire/node.db") != "three" || o.read(ram+"node.db") != "" {
		t.Errorf("after the end: %q in flash, %q in memory", o.read("etc/skywire/node.db"), o.read(ram+"node.db"))
	}
}
