package vm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// System is what a processor's Debian gives: a kernel, modules and busybox, unpacked into a folder.
type System struct {
	Arch    Arch
	Version string // of the kernel
	dir     string
}

// CacheDir is where systems are kept: SKYWIRE_VM_CACHE, or skywire-vm in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("SKYWIRE_VM_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder (SKYWIRE_VM_CACHE names one): %w", err)
	}
	return filepath.Join(dir, "skywire-vm"), nil
}

// Fetch returns the system of a processor out of the cache, or has apt download its newest kernel first.
func Fetch(ctx context.Context, cache string, a Arch) (*System, error) {
	s := &System{Arch: a, dir: filepath.Join(cache, a.Name)}
	if v, err := os.ReadFile(filepath.Join(s.dir, "version")); err == nil {
		s.Version = strings.TrimSpace(string(v))
		return s, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	var all error
	for _, suite := range a.Suites {
		version, err := fetchFrom(ctx, cache, a, suite)
		if err == nil {
			s.Version = version
			return s, nil
		}
		all = errors.Join(all, fmt.Errorf("kernel of %s from %s: %w", a.Name, suite, err))
	}
	return nil, all
}

// fetchFrom fills the folder of a processor and moves it into place, all or nothing.
func fetchFrom(ctx context.Context, cache string, a Arch, suite string) (string, error) {
	tmp, err := os.MkdirTemp(cache, a.Name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	apt, err := newApt(tmp, a.Name, suite)
	if err != nil {
		return "", err
	}
	if _, err := apt.run(ctx, "apt-get", "update", "-qq"); err != nil {
		return "", err
	}
	kernel, err := apt.kernel(ctx, "linux-image-"+a.Flavour)
	if err != nil {
		return "", err
	}
	if _, err := apt.run(ctx, "apt-get", append([]string{"download", "-qq", "busybox-static"}, kernel...)...); err != nil {
		return "", err
	}
	out := filepath.Join(tmp, "out")
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, out); err != nil {
			return "", err
		}
	}
	versions, err := filepath.Glob(filepath.Join(out, "modules", "*"))
	if err != nil || len(versions) != 1 {
		return "", fmt.Errorf("%d versions of modules in %v", len(versions), kernel)
	}
	version := filepath.Base(versions[0])
	if err := os.WriteFile(filepath.Join(out, "version"), []byte(version+"\n"), 0o644); err != nil {
		return "", err
	}
	final := filepath.Join(cache, a.Name)
	if err := os.Rename(out, final); err != nil && !os.IsExist(err) { // another process may have been quicker
		return "", err
	}
	return version, nil
}

// apt asks Debian for one processor in one suite with files of its own, so that this machine's own lists stay as they are.
type apt struct {
	dir     string
	options []string
}

func newApt(dir, arch, suite string) (*apt, error) {
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	mirror := os.Getenv("SKYWIRE_VM_MIRROR")
	if mirror == "" {
		mirror = "http://deb.debian.org/debian"
	}
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(source), 0o644); err != nil {
		return nil, err
	}
	return &apt{dir: dir, options: []string{
		"-oAPT::Architecture=" + arch, "-oAPT::Architectures=" + arch, "-oAcquire::Languages=none", "-oAcquire::Retries=3",
		"-oDir::State::Lists=" + dir + "/lists", "-oDir::State::status=/dev/null", "-oDir::Cache=" + dir + "/cache",
		"-oDir::Etc::sourcelist=" + dir + "/sources.list", "-oDir::Etc::sourceparts=/dev/null",
		"-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any",
	}}, nil
}

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, append(a.options[:len(a.options):len(a.options)], args...)...)
	c.Dir = a.dir
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kernel follows what a flavour's newest package depends on to the packages that hold files: the image, and in Debian since
// 2026 the binary and the modules beside it.
func (a *apt) kernel(ctx context.Context, name string) ([]string, error) {
	var all []string
	for todo := []string{name}; len(todo) > 0 && len(all) < 16; todo = todo[1:] {
		all = append(all, todo[0])
		out, err := a.run(ctx, "apt-cache", "depends", todo[0])
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			on, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
			if !ok || on == name || strings.HasSuffix(on, ">") {
				continue
			}
			for _, part := range []string{"linux-image-", "linux-binary-", "linux-modules-"} {
				if strings.HasPrefix(on, part) {
					todo = append(todo, on)
				}
			}
		}
	}
	return all, nil
}

// kept are the folders of modules that a guest may want: networks, the file systems of a shared root, and what they need.
var kept = []string{"net/", "lib/", "crypto/", "arch/", "drivers/net/tun.", "drivers/net/veth.", "drivers/net/dummy.", "drivers/net/wireguard/", "drivers/virtio/", "fs/9p/", "fs/netfs/", "fs/fscache/", "fs/overlayfs/"}

// unpack takes busybox, the kernel and the modules of kept out of a package.
func unpack(ctx context.Context, deb, out string) error {
	c := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	r, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("dpkg-deb: %w", err)
	}
	err = unpackTar(tar.NewReader(r), out)
	if _, drain := io.Copy(io.Discard, r); drain != nil && err == nil {
		err = drain
	}
	if wait := c.Wait(); wait != nil && err == nil {
		err = wait
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}

func unpackTar(r *tar.Reader, out string) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := place(strings.TrimPrefix(h.Name, "./"))
		if h.Typeflag != tar.TypeReg || name == "" {
			continue
		}
		if err := write(filepath.Join(out, name), r); err != nil {
			return err
		}
	}
}

// place is where a file of a package is kept, or "".
func place(name string) string {
	name = strings.TrimPrefix(name, "usr/")
	switch base := filepath.Base(name); {
	case name == "bin/busybox":
		return "busybox"
	case strings.HasPrefix(base, "vmlinuz") || strings.HasPrefix(base, "vmlinux"):
		return "kernel"
	}
	rest, ok := strings.CutPrefix(name, "lib/modules/")
	if !ok {
		return ""
	}
	version, path, _ := strings.Cut(rest, "/")
	if path == "modules.builtin" {
		return filepath.Join("modules", version, path)
	}
	path, ok = strings.CutPrefix(path, "kernel/")
	if !ok {
		return ""
	}
	for _, k := range kept {
		if strings.HasPrefix(path, k) {
			return filepath.Join("modules", version, filepath.Base(path))
		}
	}
	return ""
}

func write(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
