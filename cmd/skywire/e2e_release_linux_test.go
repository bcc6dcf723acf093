package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"skywire/mesh/key"
	"skywire/packaging/update"
)

// releaseOf makes a release of the binary under test under the names of several platforms: what is looked at is around the programs.
func releaseOf(t *testing.T, dir, keyFile string) {
	t.Helper()
	bin, err := builtBinary()
	must(t, err)
	must(t, os.MkdirAll(dir, 0o755))
	for _, name := range []string{"linux-amd64", "linux-arm-7", "linux-amd64-mini", "darwin-arm64", "darwin-amd64", "windows-amd64.exe"} {
		path := filepath.Join(dir, "skywire-"+name)
		if name == "linux-"+runtime.GOARCH {
			copyFile(t, bin, path)
		} else {
			must(t, os.WriteFile(path, []byte("a program for "+name), 0o755))
		}
	}
	c := exec.CommandContext(t.Context(), "../../packaging/release", "v1.2.3", dir, bin)
	c.Env = append(os.Environ(), "SBOM=none", "SOURCE_DATE_EPOCH=1700000000", "RELEASE_KEY="+keyFile, "MIN_VERSION=1.0.0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("packaging/release: %v\n%s", err, out)
	}
}

// TestE2ERelease looks at what make release puts around the programs: twice the same bytes, sums, a manifest that holds under its key,
// archives with what they must have, a formula with the sums of its archives, and an image that tools of images take.
func TestE2ERelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k, _, err := key.LoadOrCreate(filepath.Join(dir, "release.key"))
	must(t, err)
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	releaseOf(t, one, filepath.Join(dir, "release.key"))
	releaseOf(t, two, filepath.Join(dir, "release.key"))
	if a, b := readFile(t, filepath.Join(one, "SHA256SUMS")), readFile(t, filepath.Join(two, "SHA256SUMS")); !bytes.Equal(a, b) {
		t.Errorf("two releases of the same differ:\n%s\n%s", a, b)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--quiet", "-c", "SHA256SUMS")
	check.Dir = one
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	m, _, err := update.Release(t.Context(), update.Folder(one), []key.Public{k.Public()})
	must(t, err)
	var platforms []string
	for _, f := range m.Files {
		platforms = append(platforms, f.Platform)
	}
	want := []string{"darwin-amd64", "darwin-arm64", "linux-amd64", "linux-amd64-mini", "linux-arm-7", "windows-amd64"}
	if m.Version != "v1.2.3" || m.MinVersion != "1.0.0" || m.Time.Unix() != 1_700_000_000 || !slices.Equal(platforms, want) {
		t.Errorf("manifest %+v", m)
	}
	checkZip(t, filepath.Join(one, "skywire-1.2.3-windows-amd64.zip"))
	formula := string(readFile(t, filepath.Join(one, "skywire.rb")))
	for _, arch := range []string{"arm64", "amd64"} {
		tarball := readFile(t, filepath.Join(one, "skywire-1.2.3-darwin-"+arch+".tar.gz"))
		if sum := fmt.Sprintf("%x", sha256.Sum256(tarball)); !strings.Contains(formula, sum) {
			t.Errorf("the formula lacks the sum of the archive of %s", arch)
		}
		if f := untar(t, tarball)["skywire"]; f.Mode != 0o755 || string(f.body) != "a program for darwin-"+arch {
			t.Errorf("the archive of %s: skywire %o, %q", arch, f.Mode, f.body)
		}
	}
	if strings.Contains(formula, "@") {
		t.Errorf("the formula is not filled in:\n%s", formula)
	}
	if ruby, err := exec.LookPath("ruby"); err == nil {
		if out, err := exec.CommandContext(t.Context(), ruby, "-c", filepath.Join(one, "skywire.rb")).CombinedOutput(); err != nil {
			t.Errorf("ruby: %v\n%s", err, out)
		}
	}
	checkImage(t, filepath.Join(one, "skywire-oci.tar"), dir)
}

func checkZip(t *testing.T, path string) {
	t.Helper()
	z, err := zip.OpenReader(path)
	must(t, err)
	defer z.Close()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		if f.Name == "skywire/viscript.cmd" && f.Modified.Unix() != 1_700_000_000 {
			t.Errorf("%s is of %v", f.Name, f.Modified)
		}
	}
	if want := []string{"skywire/skywire.exe", "skywire/viscript.cmd", "skywire/README.txt", "skywire/config.yaml", "skywire/LICENSE.txt"}; !slices.Equal(names, want) {
		t.Errorf("the zip has %q, want %q", names, want)
	}
}

// checkImage has skopeo and umoci take the image, and runs the program in what they unpack.
func checkImage(t *testing.T, path, dir string) {
	t.Helper()
	for _, name := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Log("the image was not tried: ", name, " is missing")
			return
		}
	}
	run := func(name string, args ...string) []byte {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return out
	}
	var inspected struct {
		Architecture string
		Labels       map[string]string
	}
	must(t, json.Unmarshal(run("skopeo", "inspect", "--override-arch", "arm", "--override-variant", "v7", "oci-archive:"+path), &inspected))
	if inspected.Architecture != "arm" || inspected.Labels["org.opencontainers.image.version"] != "1.2.3" {
		t.Errorf("image %+v", inspected)
	}
	run("skopeo", "copy", "--insecure-policy", "--override-arch", runtime.GOARCH, "oci-archive:"+path, "oci:"+filepath.Join(dir, "one-image")+":x")
	if os.Getuid() != 0 || runtime.GOARCH != "amd64" {
		return
	}
	run("umoci", "unpack", "--image", filepath.Join(dir, "one-image")+":x", filepath.Join(dir, "bundle"))
	if out := run("chroot", filepath.Join(dir, "bundle/rootfs"), "/usr/bin/viscript", "--help"); !bytes.Contains(out, []byte("viscript")) {
		t.Errorf("viscript --help in the image: %s", out)
	}
	i, err := os.Stat(filepath.Join(dir, "bundle/rootfs/var/lib/skywire"))
	if err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("the state's folder: %v, %v", i, err)
	}
}

// TestE2EPackageFormats looks into the packages of other distributions: rpm by rpm itself, which installs it into a root of its own, those
// of Arch and Alpine by their archives.
func TestE2EPackageFormats(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("names the architecture of amd64")
	}
	dir := t.TempDir()
	buildPackage(t, "build", "0.1.0", dir, "rpm", "apk", "archlinux")
	find := func(pattern string) string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %q, %v", pattern, all, err)
		}
		return all[0]
	}
	common := map[string]int64{"usr/bin/skywire": 0o755, "etc/skywire/config.yaml": 0o644, "usr/share/man/man1/skywire-node.1.gz": 0o644, "usr/bin/viscript": -1, "usr/lib/skywire/bin/node": -1}
	systemd := map[string]int64{"usr/lib/systemd/system/skywire-node.service": 0o644, "usr/lib/systemd/system/skywire-join.service": 0o644, "usr/lib/skywire/first-boot": 0o755, "usr/share/polkit-1/rules.d/skywire.rules": 0o644, "usr/lib/sysusers.d/skywire.conf": 0o644}
	apk := untar(t, readFile(t, find("skywire*.apk")))
	if got := string(apk[".PKGINFO"].body); !strings.Contains(got, "arch = x86_64\n") || !strings.Contains(got, "pkgname = skywire\n") {
		t.Errorf(".PKGINFO:\n%s", got)
	}
	holds(t, "apk", apk, common, map[string]int64{"etc/init.d/skywire": 0o755})

	if zstd, err := exec.LookPath("zstd"); err == nil {
		c := exec.CommandContext(t.Context(), "sh", "-c", `"$0" -dc "$1" | gzip -1`, zstd, find("*.pkg.tar.zst"))
		packed, err := c.Output()
		must(t, err)
		arch := untar(t, packed)
		if got := string(arch[".PKGINFO"].body); !strings.Contains(got, "arch = x86_64\n") || !strings.Contains(got, "backup = etc/skywire/config.yaml\n") {
			t.Errorf("Arch's .PKGINFO:\n%s", got)
		}
		if _, ok := arch[".INSTALL"]; !ok {
			t.Error("Arch's package has no scripts")
		}
		holds(t, "Arch", arch, common, systemd)
	} else {
		t.Log("Arch's package was not looked into: zstd is missing")
	}
	checkRPM(t, find("*.rpm"), dir)
}

// holds wants the files of an archive with their modes; -1 is a link to the program.
func holds(t *testing.T, what string, have map[string]file, lists ...map[string]int64) {
	t.Helper()
	for _, list := range lists {
		for name, mode := range list {
			f, ok := have[name]
			switch {
			case !ok:
				t.Errorf("%s: no %s", what, name)
			case mode == -1 && filepath.Base(f.Linkname) != "skywire":
				t.Errorf("%s: %s leads to %q", what, name, f.Linkname)
			case mode != -1 && f.Mode&0o777 != mode:
				t.Errorf("%s: %s has mode %o", what, name, f.Mode)
			}
			if f.Uid != 0 || f.Gid != 0 {
				t.Errorf("%s: %s belongs to %d:%d", what, name, f.Uid, f.Gid)
			}
		}
	}
	if _, ok := have["usr/bin/node"]; ok {
		t.Errorf("%s: /usr/bin/node belongs to Node.js", what)
	}
}

func checkRPM(t *testing.T, path, dir string) {
	t.Helper()
	if _, err := exec.LookPath("rpm"); err != nil || os.Getuid() != 0 {
		t.Log("the rpm was not looked into: rpm is missing, or this is not root")
		return
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "rpm", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := run("-qp", "--qf", "%{NAME} %{VERSION} %{ARCH} %{LICENSE}", path); got != "skywire 0.1.0 x86_64 MIT" {
		t.Errorf("rpm says it is %q", got)
	}
	if got := run("-qp", "--configfiles", path); strings.TrimSpace(got) != "/etc/skywire/config.yaml" {
		t.Errorf("config files %q", got)
	}
	for _, part := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet"} {
		if !strings.Contains(run("-qp", "--scripts", path), part) {
			t.Errorf("the rpm has no %s", part)
		}
	}
	root := filepath.Join(dir, "rpmroot")
	args := []string{"--root", root, "--nodeps", "--noscripts"}
	run(append(args, "-i", path)...)
	for _, name := range []string{"usr/bin/skywire", "usr/bin/viscript", "usr/lib/systemd/system/skywire-vpn.service", "usr/lib/skywire/first-boot"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	run(append(args, "-V", "skywire")...)
	run(append(args, "-e", "skywire")...)
	if _, err := os.Lstat(filepath.Join(root, "usr/bin/skywire")); err == nil {
		t.Error("taken away, and still there: usr/bin/skywire")
	}
}
