//go:build linux

package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applets"
)

// uci gives the box a stand-in for uci, and programs that uci-defaults and the package's scripts call; it returns what runs a script of
// the package in the box.
func (o *owrt) uci() func(script string, env ...string) string {
	o.t.Helper()
	text, err := os.ReadFile("testdata/openwrt/uci.sh")
	must(o.t, err)
	must(o.t, os.WriteFile(filepath.Join(o.root, "bin/uci"), text, 0o755))
	for _, name := range []string{"firewall", "dnsmasq"} {
		o.write("etc/init.d/"+name, "#!/bin/sh\necho "+name+" $1 >>"+o.root+"/asked\n")
		must(o.t, os.Chmod(filepath.Join(o.root, "etc/init.d", name), 0o755))
	}
	return func(script string, env ...string) string {
		o.t.Helper()
		words := strings.Fields(script)
		text := string(readFile(o.t, filepath.Join(o.files, words[0])))
		for _, at := range []string{"/etc/init.d/", "/var/run/", "/lib/functions.sh", "/usr/share/skywire/"} {
			text = strings.ReplaceAll(text, at, o.root+at)
		}
		text = strings.ReplaceAll(text, "/usr/bin/skywire", o.root+"/bin/skywire")
		o.write("script", text)
		c := exec.CommandContext(o.t.Context(), o.busybox, append([]string{"sh", o.root + "/script"}, words[1:]...)...)
		c.Env = append(append(os.Environ(), env...), "UCI_DB="+o.root+"/db", "PATH="+o.root+"/bin:"+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		if err != nil {
			o.t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
}

// TestOpenWrtDefaults: uci-defaults makes the zone, the open port and dnsmasq's way to the mesh, once; a removal takes them back and
// leaves what others have.
func TestOpenWrtDefaults(t *testing.T) {
	t.Parallel()
	const foreign = "dhcp.@dnsmasq[0]=dnsmasq\ndhcp.@dnsmasq[0].server=/corp/10.0.0.1\nfirewall.@zone[0].name=lan\nskywire.globals.state=/mnt/state\n"
	o := newOwrt(t, "")
	run := o.uci()
	o.write("db", foreign)
	run("skywire.defaults")
	made := o.read("db")
	for _, want := range []string{
		"firewall.skywire=zone\n", "firewall.skywire.device=skywire+\n", "firewall.skywire.input=REJECT\n", "firewall.skywire_lan.dest=skywire\n",
		"firewall.skywire_port.dest_port=7667\n", "dhcp.@dnsmasq[0].server=/mesh/127.83.87.53\n", "dhcp.@dnsmasq[0].rebind_domain=/mesh/\n",
	} {
		if strings.Count(made, want) != 1 {
			t.Errorf("%q is there %d times", want, strings.Count(made, want))
		}
	}
	if got, want := o.read("asked"), "firewall reload\ndnsmasq reload\n"; got != want {
		t.Errorf("loaded again: %q, want %q", got, want)
	}
	// After a sysupgrade it runs again, over settings that somebody has changed since.
	changed := strings.Replace(made, "firewall.skywire.input=REJECT", "firewall.skywire.input=ACCEPT", 1)
	o.write("db", changed)
	if run("skywire.defaults"); o.read("db") != changed {
		t.Errorf("a second run changed\n%s", o.read("db"))
	}
	must(t, os.Remove(filepath.Join(o.root, "asked")))
	run("leave.sh")
	if got := o.read("db"); got != foreign {
		t.Errorf("after the removal:\n%s", got)
	}
	if got := o.read("asked"); !strings.HasPrefix(got, "vpn release --state /mnt/state ") || !strings.Contains(got, "firewall reload\n") {
		t.Errorf("a removal asks %q", got)
	}
}

// TestOpenWrtUpgrade follows the package's scripts as opkg and apk call them: an upgrade stops nothing before the new files are there,
// and then starts, where procd finds another stamp; a removal stops, and opens the kill switch.
func TestOpenWrtUpgrade(t *testing.T) {
	t.Parallel()
	const functions = "default_postinst() { echo \"start upgrade=$PKG_UPGRADE\"; }\ndefault_prerm() { echo stop; }\n"
	for _, c := range []struct {
		name    string
		scripts []string
		env     string
		want    string // how the steps go
		asked   string // what the program is asked, in the order
	}{
		{"opkg", []string{"prerm upgrade 0.2.0-1", "FILES", "postinst configure"}, "PKG_UPGRADE=1", "FILES\nstart upgrade=1\n", "viscript upgrade"},
		{"old opkg", []string{"prerm upgrade 0.2.0-1", "FILES", "postinst"}, "X=", "FILES\nstart upgrade=\n", "viscript upgrade"},
		{"apk", []string{"FILES", "postupgrade 0.2.0-r1 0.1.0-r1"}, "X=", "FILES\nstart upgrade=1\n", "viscript upgrade"},
		{"removed", []string{"prerm remove", "FILES"}, "X=", "stop\nFILES\n", "vpn release"},
		{"removed by apk", []string{"prerm 0.1.0-r1", "FILES"}, "X=", "stop\nFILES\n", "vpn release"},
		{"built into an image", []string{"postinst"}, "IPKG_INSTROOT=/nowhere/../image", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOwrt(t, "")
			run := o.uci()
			o.write("lib/functions.sh", functions)
			o.write("usr/share/skywire/leave.sh", string(readFile(t, filepath.Join(o.files, "leave.sh"))))
			o.write("var/run/skywire-viscript.pid", "1\n")
			// leave.sh is run by its path: what it calls is in the box as well.
			o.write("usr/share/skywire/leave.sh", strings.ReplaceAll(strings.ReplaceAll(o.read("usr/share/skywire/leave.sh"), "/usr/bin/", o.root+"/bin/"), "/etc/init.d/", o.root+"/etc/init.d/"))
			if strings.HasPrefix(c.env, "IPKG_INSTROOT") {
				c.env = "IPKG_INSTROOT=" + o.root + "/image"
				o.write("image"+o.root+"/lib/functions.sh", functions)
				c.want = "start upgrade=\n"
			}
			got := ""
			for _, script := range c.scripts {
				if script == "FILES" {
					got += "FILES\n"
					continue
				}
				got += run(script, c.env)
			}
			if got != c.want {
				t.Errorf("steps %q, want %q", got, c.want)
			}
			if asked := o.read("asked"); !strings.HasPrefix(asked, c.asked) || c.asked == "" && asked != "" {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

// TestOpenWrtProto runs the handler for netifd.
func TestOpenWrtProto(t *testing.T) {
	t.Parallel()
	const up = `case "$2" in id) echo '{"address": "fd00::1"}' ;; esac`
	for _, c := range []struct {
		name, action, node string
		options            []string
		want               string
	}{
		{"options", "dump", up, nil, "array servers:list(string)\nboolean exit\nboolean kill_switch\nint mtu\nstring dns\n"},
		{"mesh alone", "setup", up, nil, "run /usr/bin/skywire-vpn up --dev mesh --run /var/run/skywire\nupdate mesh 1 1\naddress fd00::1 128\nsend mesh\n"},
		{
			"exit", "setup", up,
			[]string{"servers=KEY1 KEY2", "exit=1", "kill_switch=1", "mtu=1280"},
			"run /usr/bin/skywire-vpn client --dev mesh --server KEY1 --server KEY2 --exit --kill-switch --mtu 1280 --run /var/run/skywire\n" +
				"update mesh 1 1\naddress fd00::1 128\nsend mesh\n",
		},
		{"exit of nobody", "setup", up, []string{"exit=1"}, "error BAD_CONFIG\nblocked\n"},
		{"kill switch without exit", "setup", up, []string{"servers=KEY1", "kill_switch=1"}, "error BAD_CONFIG\nblocked\n"},
		{"a server that is a flag", "setup", up, []string{"servers=--config"}, "error BAD_CONFIG\nblocked\n"},
		{"no node", "setup", "exit 3", nil, "error NO_NODE\n"},
		{"teardown", "teardown", up, nil, "kill mesh\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOwrt(t, "")
			o.program("skywire", c.node)
			o.write("sys/mesh/ifindex", "7")
			cmd := exec.CommandContext(t.Context(), o.busybox, "sh", "testdata/openwrt/proto.sh", o.files+"/../proto/skywire.sh", c.action, "mesh")
			cmd.Env = append(os.Environ(), "PROGRAMS="+o.root+"/bin", "SYS="+o.root+"/sys")
			for _, option := range c.options {
				cmd.Env = append(cmd.Env, "OPTION_"+option)
			}
			out, _ := cmd.CombinedOutput() // a setup that failed says so by its status, too
			got := ""
			for line := range strings.Lines(string(out)) {
				if !strings.HasPrefix(line, "log ") {
					got += line
				}
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestOpenWrtShipsNoSecret: nothing that is installed has a password, a key or an address of somebody, and nothing listens for others
// before somebody says so.
func TestOpenWrtShipsNoSecret(t *testing.T) {
	t.Parallel()
	// Comments hold examples. What is left may name this box, any address, and dnsmasq's way to the mesh.
	fixed := regexp.MustCompile(`\b(\d{1,3}\.){3}\d{1,3}\b`)
	secret := regexp.MustCompile(`(?i)password|passphrase|\bpsk\b|secret|private_key|\b[a-z2-7]{52}\b|skywire:join\?[a-z]`)
	seen := 0
	must(t, filepath.WalkDir("../../packaging", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == "node_modules" {
			return err
		}
		if !d.Type().IsRegular() || strings.HasSuffix(path, ".md") || strings.HasSuffix(path, ".json") && strings.Contains(path, "package") {
			return nil
		}
		seen++
		for line := range strings.Lines(string(readFile(t, path))) {
			if code, _, _ := strings.Cut(line, "#"); secret.MatchString(code) && !strings.Contains(path, "luci/") {
				t.Errorf("%s: %s", path, line)
			}
			for _, address := range fixed.FindAllString(line, -1) {
				if code := strings.TrimSpace(line); strings.HasPrefix(code, "#") || strings.HasPrefix(address, "127.") || address == "0.0.0.0" || strings.Contains(line, "#-") || strings.Contains(line, "placeholder") {
					continue
				}
				t.Errorf("%s has the address %s", path, address)
			}
		}
		return nil
	}))
	if seen < 20 {
		t.Errorf("only %d files were looked at", seen)
	}
	for section := range strings.SplitSeq(string(readFile(t, "../../packaging/openwrt/files/skywire.config")), "\nconfig ") {
		if name, _, _ := strings.Cut(section, "\n"); strings.Contains(section, "\toption enabled '1'") {
			t.Errorf("%s is on as shipped", name)
		}
	}
}

// TestOpenWrtFeed holds the recipe of the feed to what is there: the links of the program, the files that it installs.
func TestOpenWrtFeed(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(string(readFile(t, "../../packaging/openwrt/skywire/Makefile")), "\\\n", "")
	var links []string
	for _, name := range []string{"LINKS", "FULL_LINKS"} {
		m := regexp.MustCompile(`(?m)^` + name + `:=(.*)$`).FindStringSubmatch(text)
		if m == nil {
			t.Fatal("no ", name)
		}
		links = append(links, strings.Fields(m[1])...)
	}
	slices.Sort(links)
	if want := linkNames(applets.All(), false); !slices.Equal(links, want) {
		t.Errorf("links %q, want %q", links, want)
	}
	installed := regexp.MustCompile(`\$\(FILES\)/(\S+)`).FindAllStringSubmatch(text, -1)
	have := map[string]bool{}
	for _, m := range installed {
		if _, err := os.Stat("../../packaging/openwrt/files/" + m[1]); err != nil {
			t.Error(err)
		}
		have[m[1]] = true
	}
	all, err := os.ReadDir("../../packaging/openwrt/files")
	must(t, err)
	for _, f := range all {
		switch f.Name() {
		case "postinst", "postupgrade", "prerm", "skywire.keep": // which the build system writes
		default:
			if !have[f.Name()] {
				t.Errorf("the feed does not install %s", f.Name())
			}
		}
	}
}
