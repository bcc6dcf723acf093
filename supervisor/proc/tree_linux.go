package proc

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of times in /proc/PID/stat: 100 on every Linux that Go runs on.
const userHZ = 100

// stat is what we need of /proc/PID/stat.
type stat struct {
	pid, ppid, pgrp, session int
	state                    byte
	utime, stime             uint64 // with those of waited-for children
	threads                  int
	start                    uint64
	rss                      uint64 // pages
}

func readStat(pid int) (stat, bool) {
	var buf [1024]byte // a line is far shorter
	return readStatInto(pid, buf[:])
}

// readStatInto reads without an os.File, which costs more than the reading: a scan does so for every process.
func readStatInto(pid int, buf []byte) (stat, bool) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return stat{}, false
	}
	n, err := unix.Read(fd, buf)
	unix.Close(fd)
	if err != nil || n <= 0 {
		return stat{}, false
	}
	return parseStat(buf[:n])
}

// parseStat reads a line of /proc/PID/stat. The name in parentheses may hold anything, so fields count from the last ')'.
func parseStat(b []byte) (stat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return stat{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:open])))
	f := strings.Fields(string(b[end+1:]))
	if err != nil || len(f) < 22 || len(f[0]) != 1 || f[0][0] < 'A' {
		return stat{}, false
	}
	ok := true
	num := func(field int) uint64 { // numbered as in proc(5), where state is 3
		v, err := strconv.ParseInt(f[field-3], 10, 64)
		if err != nil {
			if u, uerr := strconv.ParseUint(f[field-3], 10, 64); uerr == nil {
				return u
			}
			ok = false
		}
		return uint64(max(0, v))
	}
	s := stat{
		pid: pid, state: f[0][0], ppid: int(num(4)), pgrp: int(num(5)), session: int(num(6)),
		utime: num(14) + num(16), stime: num(15) + num(17), threads: int(num(20)), start: num(22), rss: num(24),
	}
	return s, ok
}

// scan reads all processes.
func scan() map[int]stat {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	all := make(map[int]stat, len(names))
	var buf [1024]byte
	for _, n := range names {
		if n[0] < '0' || n[0] > '9' {
			continue
		}
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if st, ok := readStatInto(pid, buf[:]); ok {
			all[pid] = st
		}
	}
	return all
}

// snapshot is all processes at one moment, for all who asked at the same time.
type snapshot struct {
	all map[int]stat

	mu    sync.Mutex     // guards marks
	marks map[int]string // with zeros around each
}

// marked reports whether the environment of a process, which is read once, has a launch mark. It may have several: of a
// viscript that runs under another one.
func (s *snapshot) marked(pid int, mark string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, known := s.marks[pid]
	if !known {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ") // gone, or not ours: without a mark
		for kv := range bytes.SplitSeq(b, []byte{0}) {
			if v, ok := bytes.CutPrefix(kv, []byte(MarkVariable+"=")); ok {
				have += "\x00" + string(v) + "\x00"
			}
		}
		s.marks[pid] = have
	}
	return strings.Contains(have, "\x00"+mark+"\x00")
}

// looks shares scans among those who look at trees: a hundred that are waited for cost one scan a turn, not a hundred.
type looks struct {
	running sync.Mutex // held during a scan

	mu   sync.Mutex // guards next
	next *look
}

// look is a scan to come.
type look struct {
	once sync.Once
	seen *snapshot
}

// take returns a snapshot that was begun after it was called.
func (l *looks) take() *snapshot {
	l.mu.Lock()
	if l.next == nil {
		l.next = &look{}
	}
	n := l.next
	l.mu.Unlock()
	n.once.Do(func() {
		l.running.Lock()
		defer l.running.Unlock()
		l.mu.Lock()
		l.next = nil // who asks from here on wants a later one
		l.mu.Unlock()
		n.seen = &snapshot{all: scan(), marks: map[int]string{}}
	})
	return n.seen
}

func (c *Child) hasSeen(pid int, start uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.seen[pid]
	return ok && s == start
}

// Members returns the living processes of the tree. With deep it also looks into environments for the launch mark,
// which finds those who left session, group and parent behind where there is no cgroup.
func (c *Child) Members(deep bool) []ID {
	var ids []ID
	for _, st := range c.members(deep) {
		if st.state != 'Z' && st.state != 'X' {
			ids = append(ids, ID{st.pid, st.start})
		}
	}
	return ids
}

func (c *Child) members(deep bool) []stat {
	seen := c.host.looks.take()
	all := seen.all
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.rootsLocked(all)
	if deep && c.group == "" && c.mark != "" {
		for pid, st := range all {
			if !in[pid] && pid != c.host.self && st.start >= c.id.Start && seen.marked(pid, c.mark) {
				in[pid] = true
			}
		}
	}
	descend(all, in)
	delete(in, c.host.self)
	out := make([]stat, 0, len(in))
	clear(c.seen)
	for pid := range in {
		out = append(out, all[pid])
		c.seen[pid] = all[pid].start
	}
	sort.Slice(out, func(i, j int) bool {
		return cmp.Or(cmp.Compare(out[i].start, out[j].start), cmp.Compare(out[i].pid, out[j].pid)) < 0
	})
	return out
}

// rootsLocked finds the members that need no parent to be recognised.
func (c *Child) rootsLocked(all map[int]stat) map[int]bool {
	in := map[int]bool{}
	for _, pid := range groupPIDsOf(c.group) {
		if _, ok := all[pid]; ok {
			in[pid] = true
		}
	}
	for pid, start := range c.seen {
		if st, ok := all[pid]; ok && st.start == start {
			in[pid] = true
		}
	}
	if c.id.PID <= 0 { // not known; and 0 is the session of kernel threads
		return in
	}
	// Nobody knows since when the number was free: another may have had it meanwhile, and have left a session behind.
	if c.late {
		return in
	}
	// While a member of session or group c.id.PID lives the kernel gives the number to nobody else; so if another
	// process has it now, the session of that number is another one too.
	first, there := all[c.id.PID]
	if there && first.start != c.id.Start {
		return in
	}
	for pid, st := range all {
		if (pid == c.id.PID || st.session == c.id.PID || st.pgrp == c.id.PID) && st.start >= c.id.Start {
			in[pid] = true
		}
	}
	return in
}

func groupPIDsOf(dir string) []int {
	if dir == "" {
		return nil
	}
	return groupPIDs(dir)
}

// descend adds the children of members until there are no more.
func descend(all map[int]stat, in map[int]bool) {
	for grown := true; grown; {
		grown = false
		for pid, st := range all {
			if !in[pid] && in[st.ppid] {
				in[pid] = true
				grown = true
			}
		}
	}
}

// Has reports whether process pid belongs to the tree.
func (c *Child) Has(pid int) bool {
	return slices.ContainsFunc(c.Members(true), func(id ID) bool { return id.PID == pid })
}

// Usage adds up what the tree uses. What the kernel does not tell for every member is unknown.
func (c *Child) Usage() Usage {
	u := Usage{Source: "proc"}
	page := uint64(os.Getpagesize())
	var rss, pss, read, write uint64
	fds := 0
	havePSS, haveIO, haveFDs := true, true, true
	var user, sys uint64
	for _, st := range c.members(false) {
		user += st.utime
		sys += st.stime
		if st.state == 'Z' {
			continue
		}
		u.Processes++
		u.Threads += st.threads
		rss += st.rss * page
		dir := "/proc/" + strconv.Itoa(st.pid)
		v, ok := fieldKB(dir+"/smaps_rollup", "Pss:")
		pss += v
		havePSS = havePSS && ok
		r, w, ok := readIO(dir + "/io")
		read, write = read+r, write+w
		haveIO = haveIO && ok
		n, err := countFDs(dir + "/fd")
		fds += n
		haveFDs = haveFDs && err == nil
	}
	u.CPUUser, u.CPUSys = ticks(user), ticks(sys)
	if us, ss, ok := cgroupCPU(c.group); ok { // also counts those who have ended
		u.CPUUser, u.CPUSys, u.Source = us, ss, "cgroup2+proc"
	}
	if u.Processes == 0 {
		return u
	}
	u.RSS = &rss
	if havePSS {
		u.PSS = &pss
	}
	if haveIO {
		u.IORead, u.IOWrite = &read, &write
	}
	if haveFDs {
		u.FDs = &fds
	}
	return u
}

func ticks(n uint64) time.Duration { return time.Duration(n) * time.Second / userHZ }

func cgroupCPU(dir string) (user, sys time.Duration, ok bool) {
	if dir == "" {
		return 0, 0, false
	}
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, 0, false
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		name, val, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseInt(val, 10, 64)
		switch {
		case err != nil:
		case name == "user_usec":
			user, found = time.Duration(v)*time.Microsecond, found+1
		case name == "system_usec":
			sys, found = time.Duration(v)*time.Microsecond, found+1
		}
	}
	return user, sys, found == 2
}

func fieldKB(path, name string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			v, err := strconv.ParseUint(f[1], 10, 64)
			return v * 1024, err == nil
		}
	}
	return 0, false
}

func readIO(path string) (read, write uint64, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		name, val, _ := strings.Cut(strings.TrimSpace(line), ": ")
		v, err := strconv.ParseUint(val, 10, 64)
		switch {
		case err != nil:
		case name == "rchar": // what the program moved, disk or not
			read, found = v, found+1
		case name == "wchar":
			write, found = v, found+1
		}
	}
	return read, write, found == 2
}

func countFDs(dir string) (int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}
