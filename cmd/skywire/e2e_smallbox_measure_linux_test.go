package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"skywire/cmd/internal/lab"
)

var gcLine = regexp.MustCompile(`^gc \d+ @.* ms clock, ([\d.]+)\+([\d.]+)/([\d.]+)/([\d.]+)\+([\d.]+) ms cpu,`)

// traced adds up the CPU of all collections that a log tells of (GODEBUG=gctrace=1), without what idle processors gave.
func traced(t testing.TB, log string) (seconds float64) {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := gcLine.FindStringSubmatch(s.Text()); m != nil {
			for _, i := range []int{1, 2, 3, 5} {
				ms, _ := strconv.ParseFloat(m[i], 64)
				seconds += ms / 1e3
			}
		}
	}
	return seconds
}

// scheduled is for how long the threads of a process have run, and waited while they could have.
func scheduled(pid int) (ran, waited float64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		var r, w float64
		if n, _ := fmt.Sscan(string(b), &r, &w); n == 2 {
			ran, waited = ran+r/1e9, waited+w/1e9
		}
	}
	return ran, waited
}

// memoryGroup is a cgroup with a limit, of either version.
type memoryGroup struct {
	dir string
	v2  bool
}

func newMemoryGroup(t testing.TB, name string, limit int64) *memoryGroup {
	t.Helper()
	g, base := &memoryGroup{}, "/sys/fs/cgroup/memory"
	limits, value := []string{"memory.limit_in_bytes"}, strconv.FormatInt(limit, 10)
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); err == nil && slices.Contains(strings.Fields(string(b)), "memory") {
		g.v2, base, limits = true, "/sys/fs/cgroup", []string{"memory.max"}
	}
	g.dir = filepath.Join(base, fmt.Sprintf("skywire-%s-%d", name, os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skip("no memory controller for cgroups: ", err)
	}
	t.Cleanup(func() {
		err := lab.Wait(context.Background(), patience, "the cgroup is empty", func(context.Context) error { return os.Remove(g.dir) })
		if err != nil {
			t.Error(err)
		}
	})
	for _, file := range limits {
		if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil {
			t.Skip("no memory limit for cgroups: ", err)
		}
	}
	return g
}

// read is the most memory that was in use, and how many programs were killed for want of it.
func (g *memoryGroup) read(t testing.TB) (peak, kills int64) {
	t.Helper()
	files := map[bool][2]string{false: {"memory.max_usage_in_bytes", "memory.oom_control"}, true: {"memory.peak", "memory.events"}}[g.v2]
	b, err := os.ReadFile(filepath.Join(g.dir, files[0]))
	if err != nil && !(g.v2 && errors.Is(err, os.ErrNotExist)) { // memory.peak came with Linux 5.19
		t.Fatal(err)
	}
	peak, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	b, err = os.ReadFile(filepath.Join(g.dir, files[1]))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			kills, err = strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			found = err == nil
		}
	}
	if !found {
		t.Fatalf("%s says nothing of oom_kill: %s", files[1], b)
	}
	return peak, kills
}

// flash is a file that a box mounts as a disk of its own, whose writes the kernel counts.
type flash struct{ image string }

func newFlash(t testing.TB, dir string) *flash {
	t.Helper()
	f := &flash{image: filepath.Join(dir, "flash.img")}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices: ", err)
	}
	file, err := os.Create(f.image)
	if err == nil {
		err = errors.Join(file.Truncate(96<<20), file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", f.image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 for a flash: %v %s", err, out)
	}
	return f
}

// writes are what a disk was told to write.
type writes struct{ calls, bytes, flushes int64 }

func (w writes) since(before writes) writes {
	return writes{w.calls - before.calls, w.bytes - before.bytes, w.flushes - before.flushes}
}

// read asks the kernel, after all that waits in memory was written.
func (f *flash) read(t testing.TB) writes {
	t.Helper()
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backing {
		if name, err := os.ReadFile(b); err != nil || strings.TrimSpace(string(name)) != f.image {
			continue
		}
		device := filepath.Dir(filepath.Dir(b))
		if out, err := exec.Command("blockdev", "--flushbufs", "/dev/"+filepath.Base(device)).CombinedOutput(); err != nil {
			t.Fatalf("blockdev: %v %s", err, out)
		}
		text, err := os.ReadFile(filepath.Join(device, "stat"))
		if err != nil {
			t.Fatal(err)
		}
		var n []int64 // Documentation/block/stat.rst
		for _, s := range strings.Fields(string(text)) {
			v, _ := strconv.ParseInt(s, 10, 64)
			n = append(n, v)
		}
		w := writes{calls: n[4], bytes: n[6] * 512}
		if len(n) > 15 {
			w.flushes = n[15]
		}
		return w
	}
	t.Fatalf("%s is mounted nowhere", f.image)
	return writes{}
}
