package main

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestE2ELuCIPackages looks at what opkg and apk would get of luci-app-skywire, and at what the package of the program has for procd,
// upgrades and apk.
func TestE2ELuCIPackages(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("names the architecture of amd64")
	}
	t.Parallel()
	dir := t.TempDir()
	buildPackage(t, "openwrt/luci/build", "0.1.0", dir)
	buildPackage(t, "openwrt/build", "0.1.0", dir)
	open := func(name, version, arch string) (ipk, apk map[string]file, control, info string) {
		t.Helper()
		outer := untar(t, readFile(t, filepath.Join(dir, name+"_"+version+"-1_"+arch+".ipk")))
		control = string(untar(t, outer["control.tar.gz"].body)["control"].body)
		path := name + "-" + version + "-r1_" + arch + ".apk"
		if arch == "all" {
			path = name + "-" + version + "-r1.apk"
		}
		apk = untar(t, readFile(t, filepath.Join(dir, path)))
		return untar(t, outer["data.tar.gz"].body), apk, control, string(apk[".PKGINFO"].body)
	}
	ipk, apk, control, info := open("luci-app-skywire", "0.1.0", "all")
	for text, want := range map[string][]string{
		control: {"Package: luci-app-skywire\n", "Architecture: all\n", "Depends: luci-base, skywire\n"},
		info:    {"arch = noarch\n", "pkgver = 0.1.0-r1\n", "depend = luci-base\n"},
	} {
		for _, line := range want {
			if !strings.Contains(text, line) {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
	}
	list := string(apk["lib/apk/packages/luci-app-skywire.list"].body)
	for what, all := range map[string]map[string]file{"ipk": ipk, "apk": apk} {
		for _, name := range []string{
			"www/luci-static/resources/view/skywire/status.js", "www/luci-static/resources/skywire/tools.js", "usr/share/luci/menu.d/luci-app-skywire.json",
			"usr/share/rpcd/acl.d/luci-app-skywire.json", "usr/libexec/rpcd/luci.skywire", "usr/share/skywire/luci.skywire",
		} {
			if _, ok := all[name]; !ok || !strings.Contains(list, "/"+name+"\n") {
				t.Errorf("%s: no %s, or not in the list:\n%s", what, name, list)
			}
		}
		if got := all["usr/share/skywire/luci.skywire"].Linkname; got != "../../bin/skywire" {
			t.Errorf("%s: the backend is %q", what, got)
		}
		if m := all["usr/libexec/rpcd/luci.skywire"].Mode & 0o777; m != 0o755 {
			t.Errorf("%s: rpcd cannot run the plugin: %o", what, m)
		}
	}
	ipk, apk, control, _ = open("skywire", "0.1.0", "x86_64")
	if !strings.Contains(control, "Require-User: skywire:skywire\n") || string(apk["lib/apk/packages/skywire.rusers"].body) != "skywire:skywire\n" {
		t.Errorf("the user of the daemons is not asked for:\n%s", control)
	}
	if got := string(apk["lib/apk/packages/skywire.conffiles"].body); got != "/etc/config/skywire\n" {
		t.Errorf("conffiles of apk %q", got)
	}
	if got := string(apk[".post-upgrade"].body); !strings.Contains(got, "PKG_UPGRADE=1") {
		t.Errorf("apk upgrades by %q", got)
	}
	for what, all := range map[string]map[string]file{"ipk": ipk, "apk": apk} {
		if got := string(all["usr/share/skywire/stamp"].body); got != "0.1.0\n" {
			t.Errorf("%s: stamp %q", what, got)
		}
		for _, name := range []string{"state.sh", "keep.sh", "leave.sh"} {
			if _, ok := all["usr/share/skywire/"+name]; !ok {
				t.Errorf("%s: no %s", what, name)
			}
		}
		if _, ok := all["lib/upgrade/skywire.sh"]; !ok {
			t.Errorf("%s: nothing is saved before a sysupgrade", what)
		}
	}
}
