package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// config makes viscript the machine's process 1, with the check as its only app.
const config = `settings: {runHeadless: true}
apps:
  check: {path: /init, default_args: [check], autostart: true, restart: never}
`

// boot is process 1 until it becomes another program. When it cannot, it says so and switches off.
func boot() {
	err := prepare()
	if err == nil {
		if cmdline, _ := os.ReadFile("/proc/cmdline"); slices.Contains(strings.Fields(string(cmdline)), "share") {
			err = enterShare()
		} else {
			err = supervise()
		}
	}
	say("error", map[string]any{"error": err.Error()})
	off()
}

// off switches the machine off. It returns only when the kernel refuses.
func off() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func prepare() error {
	for _, m := range []struct{ what, where string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := unix.Mount(m.what, m.where, m.what, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range modules { // their names are in order
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := unix.InitModule(data, ""); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(path), err)
		}
		if err := os.Remove(path); err != nil { // it would take memory twice
			return err
		}
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	return nil
}

// supervise becomes viscript.
func supervise() error {
	if err := os.MkdirAll("/etc/skywire", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/skywire/config.yaml", []byte(config), 0o644); err != nil {
		return err
	}
	env := []string{"PATH=/bin", "HOME=/root"}
	return fmt.Errorf("start %s: %w", skywire, syscall.Exec(skywire, []string{"skywire", "viscript", "run", "--headless"}, env))
}

// enterShare makes the host's folder the root, with what is written kept in memory, and becomes a shell that runs /script.
func enterShare() error {
	script, err := os.ReadFile("/script")
	if err != nil {
		return err
	}
	for _, d := range []string{"/lower", "/memory", "/new"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("share", "/lower", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,cache=loose,msize=512000"); err != nil {
		return fmt.Errorf("mount the shared root: %w", err)
	}
	if err := unix.Mount("tmpfs", "/memory", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"/memory/up", "/memory/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/memory/up,workdir=/memory/work"); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	for _, d := range []string{"proc", "sys", "dev", "run"} { // what lies in the host's /tmp stays in sight
		if err := unix.Mount("/"+d, "/new/"+d, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move /%s: %w", d, err)
		}
	}
	if err := os.WriteFile("/new/run/script", script, 0o755); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	return fmt.Errorf("start a shell: %w", syscall.Exec(busybox, []string{"chroot", "/new", "/bin/sh", "/run/script"}, env))
}
