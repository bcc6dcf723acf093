package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Host starts children of this process. Its methods may be called from any goroutine.
type Host struct {
	log     *slog.Logger
	base    string // our own cgroup v2 folder, writable; "" without
	own     string // what /proc/PID/cgroup calls it
	self    int
	reaping bool // orphans come to us
	looks   looks

	mu      sync.Mutex          // guards the fields below
	direct  map[int]bool        // started here and not yet waited for
	zombies map[int]time.Time   // orphans that ended, when first seen
	trees   map[*Child]struct{} // to tell whose orphan it is
	left    []string            // cgroup folders that were busy still when their tree had ended
}

// Lacks names what this system does not give a supervisor: nothing.
func Lacks() []string { return nil }

// NewHost looks at what this system offers. With subreaper (which belongs to the whole process, so only a main may ask
// for it) orphans of the trees come to this process instead of init.
func NewHost(log *slog.Logger, subreaper bool) *Host {
	h := &Host{
		log: log, self: os.Getpid(),
		direct: map[int]bool{}, zombies: map[int]time.Time{}, trees: map[*Child]struct{}{},
	}
	if subreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			log.Warn("orphans will not come to us", "err", err)
		} else {
			h.reaping = true
		}
	}
	h.base, h.own = ownCgroup()
	return h
}

// ownCgroup returns the cgroup v2 folder of this process if it may make children in it, and its name in /proc.
func ownCgroup() (dir, path string) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSpace(rest)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if path == "" || err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		sep := strings.Index(line, " - cgroup2 ")
		if sep < 0 || len(f) < 5 {
			continue
		}
		root, at := f[3], f[4]
		rel, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
		if !ok {
			continue
		}
		dir = strings.TrimSuffix(filepath.Join(at, rel), "/"+selfGroup)
		if unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
			return "", ""
		}
		return dir, strings.TrimSuffix(strings.TrimSuffix(path, selfGroup), "/")
	}
	return "", ""
}

// Reaping says whether orphans come to this process: then Reap has to be called on SIGCHLD.
func (h *Host) Reaping() bool { return h.reaping }

// How long an orphan of no known tree is left to another part of this process that may wait for it: one from a launch whose tree is gone,
// or is of another Host in this process, and any other.
const (
	launchZombie  = 500 * time.Millisecond
	foreignZombie = 3 * time.Second
)

// Reap waits for orphans that came to this process and have ended, each by its number. Those of a tree at once;
// others, which may be children that another part of this process is about to wait for, when they are still there
// after a few seconds. It reports whether some were left for later.
func (h *Host) Reap() (later bool) {
	if !h.reaping {
		return false
	}
	all := scan()
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sweepLocked()
	for pid := range h.zombies {
		if p, ok := all[pid]; !ok || p.state != 'Z' {
			delete(h.zombies, pid)
		}
	}
	for pid, p := range all {
		if p.state != 'Z' || p.ppid != h.self || h.direct[pid] {
			continue
		}
		since, seen := h.zombies[pid]
		if !seen {
			h.zombies[pid] = now
		}
		wait := foreignZombie
		if h.ofLaunch(pid) {
			wait = launchZombie
		}
		if !h.ofTreeLocked(p) && (!seen || now.Sub(since) < wait) {
			later = true
			continue
		}
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		delete(h.zombies, pid)
	}
	return later
}

// sweepLocked removes the folders that were busy when their tree had ended: the kernel lets go of a process a moment
// after it can't be seen any more.
func (h *Host) sweepLocked() {
	left := h.left[:0]
	for _, dir := range h.left {
		if !removeGroups(dir) {
			left = append(left, dir)
		}
	}
	h.left = left
}

// Sweep removes what killed runs have left of launches that nobody knows any more: folders without processes.
func (h *Host) Sweep(known func(mark string) bool) {
	roots := []string{h.base}
	for _, controller := range []string{"memory", "pids", "cpu"} {
		roots = append(roots, cgroup1Folder(controller))
	}
	for _, root := range roots {
		if root == "" {
			continue
		}
		list, _ := os.ReadDir(root)
		for _, d := range list {
			if mark, ok := strings.CutPrefix(d.Name(), "viscript-"); ok && d.IsDir() && "viscript-"+mark != selfGroup && !known(mark) {
				removeGroups(filepath.Join(root, d.Name()))
			}
		}
	}
}

func (h *Host) ofTreeLocked(p stat) bool {
	for c := range h.trees {
		if p.session == c.id.PID || p.pgrp == c.id.PID || c.hasSeen(p.pid, p.start) {
			return true
		}
	}
	return false
}

// ofLaunch reports whether a process that has ended was in the cgroup of a launch of ours, as nobody's child but an app's is.
func (h *Host) ofLaunch(pid int) bool {
	if h.base == "" {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	_, path, _ := strings.Cut(string(b), "0::"+h.own+"/")
	return strings.HasPrefix(path, "viscript-") && !strings.HasPrefix(path, selfGroup)
}

// BootID tells this boot from others: a pid and start time mean nothing after a reboot.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Uptime is the time since the boot that BootID names, with suspend; 0 where it is not known.
func Uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Monotonic is the time on the clock that other programs of this boot compare by (CLOCK_MONOTONIC); 0 where there is none.
func Monotonic() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// cgroup makes the folder of one launch; "" without cgroups.
func (h *Host) cgroup(mark string) (string, *os.File) {
	if h.base == "" {
		return "", nil
	}
	dir := filepath.Join(h.base, "viscript-"+mark)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil
	}
	f, err := os.Open(dir)
	if err != nil {
		os.Remove(dir)
		return "", nil
	}
	return dir, f
}

// Pipe makes a pipe for the output of a child: the child gets w, which also reads, so that it lives on when the
// reader is gone; path finds it again (Reopen).
func Pipe(path string) (r, w *os.File, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, err
	}
	os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, nil, fmt.Errorf("make pipe %s: %w", path, err)
	}
	// Not os.OpenFile: the child must not get a non-blocking standard output.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	w = os.NewFile(uintptr(fd), path)
	if r, err = Reopen(path); err != nil {
		w.Close()
		return nil, nil, err
	}
	return r, w, nil
}

// Reopen opens the reading end of a Pipe again.
func Reopen(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}
