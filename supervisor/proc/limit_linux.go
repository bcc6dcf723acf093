package proc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// selfGroup is where this process moves when its own cgroup has to hold those of the apps with controllers: cgroup v2
// lets a folder have processes or controllers below it, not both.
const selfGroup = "viscript-self"

// cpuPeriod is the time slice in which a share of CPU is given out, in µs.
const cpuPeriod = 100000

// limitRounds bounds how often limit looks for what a child has started meanwhile.
const limitRounds = 8

// limit holds a child that was just started to its limits, with what it has started meanwhile unless it stands still, and returns those
// that nothing here enforces.
func (h *Host) limit(c *Child, l Limits, still bool) (missing []string) {
	var each []func(pid int) error // what has to be done to every process
	enforce := func(f func(pid int) error) bool {
		if f(c.id.PID) != nil {
			return false
		}
		each = append(each, f)
		return true
	}
	if l.Nice != 0 && !enforce(func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, l.Nice) }) {
		missing = append(missing, "nice")
	}
	if l.Files > 0 && !enforce(func(pid int) error { return setLimit(pid, unix.RLIMIT_NOFILE, uint64(l.Files)) }) {
		missing = append(missing, "files")
	}
	for _, g := range groupsOf(l) {
		if c.group != "" && h.delegate(g.name) && writeAll(c.group, g.v2) == nil {
			continue
		}
		if dir := h.cgroup1(g.name, c.mark); dir != "" {
			c.extra = append(c.extra, dir)
			join := func(pid int) error {
				return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			}
			if writeAll(dir, g.v1) == nil && enforce(join) {
				continue
			}
		}
		// Of each process, what is writable and private.
		if g.name == "memory" && enforce(func(pid int) error { return setLimit(pid, unix.RLIMIT_DATA, l.Memory) }) {
			continue
		}
		missing = append(missing, g.name)
	}
	if still {
		return missing
	}
	held := map[int]bool{c.id.PID: true}
	// Twice without a new one: a fork that was under way at the first look is over at the second.
	for clean, round := 0, 0; len(each) > 0 && clean < 2 && round < limitRounds; round++ {
		clean++
		for _, id := range c.Members(true) {
			if held[id.PID] {
				continue
			}
			held[id.PID], clean = true, 0
			for _, f := range each {
				_ = f(id.PID) // it may have ended
			}
		}
	}
	return missing
}

// groupLimit is what a controller of cgroups, by its name, is told: file → text.
type groupLimit struct {
	name   string
	v2, v1 map[string]string
}

func groupsOf(l Limits) (groups []groupLimit) {
	if l.Memory > 0 {
		text := strconv.FormatUint(l.Memory, 10)
		groups = append(groups, groupLimit{"memory", map[string]string{"memory.max": text}, map[string]string{"memory.limit_in_bytes": text}})
	}
	if l.PIDs > 0 {
		m := map[string]string{"pids.max": strconv.Itoa(l.PIDs)}
		groups = append(groups, groupLimit{"pids", m, m})
	}
	if l.CPU > 0 {
		quota := strconv.Itoa(max(1000, int(math.Round(l.CPU*cpuPeriod/100))))
		groups = append(groups, groupLimit{
			"cpu",
			map[string]string{"cpu.max": fmt.Sprintf("%s %d", quota, cpuPeriod)},
			map[string]string{"cpu.cfs_period_us": strconv.Itoa(cpuPeriod), "cpu.cfs_quota_us": quota},
		})
	}
	return groups
}

func setLimit(pid, what int, n uint64) error {
	return unix.Prlimit(pid, what, &unix.Rlimit{Cur: n, Max: n}, nil)
}

func writeAll(dir string, files map[string]string) error {
	for name, text := range files {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// delegate has the kernel hand a controller to the folders of the apps.
func (h *Host) delegate(controller string) bool {
	b, err := os.ReadFile(filepath.Join(h.base, "cgroup.subtree_control"))
	if err != nil {
		return false
	}
	if bytes.Contains(append([]byte(" "), b...), []byte(" "+controller)) {
		return true
	}
	on := map[string]string{"cgroup.subtree_control": "+" + controller}
	err = writeAll(h.base, on)
	if errors.Is(err, unix.EBUSY) {
		dir := filepath.Join(h.base, selfGroup)
		os.Mkdir(dir, 0o755)
		if writeAll(dir, map[string]string{"cgroup.procs": strconv.Itoa(h.self)}) == nil {
			err = writeAll(h.base, on)
		}
	}
	return err == nil
}

// cgroup1 makes the folder of one launch under a controller of cgroup v1; "" without.
func (h *Host) cgroup1(controller, mark string) string {
	root := cgroup1Folder(controller)
	if root == "" {
		return ""
	}
	dir := filepath.Join(root, "viscript-"+mark)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return ""
	}
	return dir
}

// cgroup1Folder is where this process is under a controller of cgroup v1.
func cgroup1Folder(controller string) string {
	own, err := os.ReadFile("/proc/self/cgroup")
	mounts, merr := os.ReadFile("/proc/self/mountinfo")
	if err != nil || merr != nil {
		return ""
	}
	has := func(list string) bool {
		for name := range strings.SplitSeq(list, ",") {
			if name == controller {
				return true
			}
		}
		return false
	}
	path := ""
	for line := range strings.Lines(string(own)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && has(f[1]) {
			path = f[2]
		}
	}
	for line := range strings.Lines(string(mounts)) {
		head, tail, ok := strings.Cut(strings.TrimSpace(line), " - cgroup ")
		f, options := strings.Fields(head), strings.Fields(tail)
		if !ok || path == "" || len(f) < 5 || len(options) < 2 || !has(options[1]) {
			continue
		}
		if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(f[3], "/")); ok {
			return filepath.Join(f[4], rel)
		}
	}
	return ""
}

// outOfMemory reports whether the kernel killed the child for want of memory: by its cgroup, else by the kernel's log.
func (c *Child) outOfMemory() bool {
	files := []string{filepath.Join(c.group, "memory.events")}
	for _, dir := range c.extra {
		files = append(files, filepath.Join(dir, "memory.oom_control"))
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
				return true
			}
		}
	}
	return inKernelLog(fmt.Sprintf("Killed process %d ", c.id.PID))
}

// maxKernelLog bounds how many records of the kernel's log are read.
const maxKernelLog = 20000

func inKernelLog(text string) bool {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10)
	for range maxKernelLog {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) { // overwritten meanwhile: the next
			continue
		}
		if err != nil || n <= 0 {
			return false
		}
		if bytes.Contains(buf[:n], []byte(text)) {
			return true
		}
	}
	return false
}
