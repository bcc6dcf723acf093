package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupTries is how often a cgroup is made for a start: see Host.Sweep.
const groupTries = 3

// killedStatus is what a shell ends with when what it ran was killed.
const killedStatus = 128 + 9

// Child is a started or adopted process and its tree.
type Child struct {
	host  *Host
	id    ID
	mark  string
	group string   // cgroup folder, ""
	extra []string // more cgroup folders, of limits
	p     *os.Process
	pidfd *os.File // adopted
	late  bool     // it had ended before it was adopted, who knows when: the number may be another's by now

	// Missing are the limits that nothing here enforces.
	Missing []string

	mu   sync.Mutex // guards the fields below
	main ID         // follows the first process, see Follow
	seen map[int]uint64
	left bool // waited for
}

// Start starts a program in a session of its own. The files stay the caller's.
func (h *Host) Start(s Spec) (*Child, error) {
	attr := &os.ProcAttr{
		Dir:   s.Dir,
		Env:   append(s.Env[:len(s.Env):len(s.Env)], MarkVariable+"="+s.Mark),
		Files: append([]*os.File{s.Stdin, s.Stdout, s.Stderr}, s.Extra...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if s.User != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: s.User.UID, Gid: s.User.GID, Groups: s.User.Groups}
	}
	attr.Sys.AmbientCaps = s.ambient()
	attr.Sys.Setctty = s.TTY // Ctty is 0, Stdin
	c := &Child{host: h, mark: s.Mark, seen: map[int]uint64{}}
	// Held over the start, so that Reap never takes a child for an orphan.
	h.mu.Lock()
	defer h.mu.Unlock()
	p, err := startConfined(s, func() (*os.Process, error) {
		if s.Limits == (Limits{}) {
			return c.start(s.Path, s.Args, attr)
		}
		return c.startLimited(s, attr)
	})
	if err != nil {
		c.dropCgroup()
		return nil, err
	}
	c.p = p
	c.known(p)
	h.direct[p.Pid] = true
	h.trees[c] = struct{}{}
	return c, nil
}

// known notes which process it is.
func (c *Child) known(p *os.Process) {
	c.id.PID = p.Pid
	if st, ok := readStat(p.Pid); ok {
		c.id.Start = st.start
	}
}

// startLimited starts the process and holds it by ptrace(2) before its first instruction, until it has its limits: so nothing that it
// starts escapes them. Where tracing is not allowed they are set a moment later.
func (c *Child) startLimited(s Spec, attr *os.ProcAttr) (*os.Process, error) {
	runtime.LockOSThread() // the thread that starts a traced process is its tracer
	defer runtime.UnlockOSThread()
	attr.Sys.Ptrace = true
	p, err := c.start(s.Path, s.Args, attr)
	held := err == nil
	if errors.Is(err, os.ErrPermission) {
		attr.Sys.Ptrace = false
		p, err = c.start(s.Path, s.Args, attr)
	}
	if err != nil {
		return nil, err
	}
	if held {
		awaitStop(p.Pid)
	}
	c.known(p)
	c.Missing = c.host.limit(c, s.Limits, held)
	if held {
		_ = unix.PtraceDetach(p.Pid) // fails if it was killed meanwhile
	}
	return p, nil
}

// awaitStop waits until a traced process stands still, or is gone; who waits for it later sees its end all the same.
func awaitStop(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// start starts the process in a cgroup of its own, or without where there is none or it may not be entered.
func (c *Child) start(path string, args []string, attr *os.ProcAttr) (p *os.Process, err error) {
	for range groupTries {
		dir, f := c.host.cgroup(c.mark)
		if f == nil {
			break
		}
		c.group = dir
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(f.Fd())
		p, err = os.StartProcess(path, args, attr)
		f.Close()
		if err == nil || errors.Is(err, os.ErrPermission) {
			return p, err
		}
		if unix.Access(dir, unix.F_OK) == nil {
			if errors.Is(err, os.ErrNotExist) { // the program
				return nil, err
			}
			break // no clone3, or the folder may not be entered
		}
		// Another viscript beside this one swept the folder away while it was empty.
	}
	c.dropCgroup()
	c.group = ""
	attr.Sys.UseCgroupFD = false
	return os.StartProcess(path, args, attr)
}

// Adopt takes hold of a process that an earlier run started. It returns ErrGone when that one has ended; the Child is
// valid all the same, for whatever is left of its tree: with a zero ID, what bears the mark.
func (h *Host) Adopt(id ID, mark string) (*Child, error) {
	c := &Child{host: h, id: id, mark: mark, seen: map[int]uint64{}}
	if h.base != "" {
		// An earlier run may have been started from another cgroup; then only the other marks hold.
		if dir := filepath.Join(h.base, "viscript-"+mark); unix.Access(dir, unix.F_OK) == nil {
			c.group = dir
		}
	}
	for _, controller := range []string{"memory", "pids", "cpu"} { // of limits, by cgroup v1
		if root := cgroup1Folder(controller); root != "" && mark != "" {
			if dir := filepath.Join(root, "viscript-"+mark); unix.Access(dir, unix.F_OK) == nil {
				c.extra = append(c.extra, dir)
			}
		}
	}
	h.mu.Lock()
	h.trees[c] = struct{}{}
	h.mu.Unlock()
	if id.PID <= 0 {
		c.left, c.late = true, true
		return c, ErrGone
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.PidfdOpen(id.PID, 0)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOSYS) {
		return c, fmt.Errorf("adopt %d: %w", id.PID, err)
	}
	if err == nil {
		c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	// Looked at with the descriptor open: now the number can't change hands between.
	st, ok := readStat(id.PID)
	if ok && st.start == id.Start && st.ppid == h.self {
		// We are that run, in a new program: still the parent, who is told the exit status.
		if c.p, err = os.FindProcess(id.PID); err == nil {
			if c.pidfd != nil {
				c.pidfd.Close()
				c.pidfd = nil
			}
			h.mu.Lock()
			h.direct[id.PID] = true
			h.mu.Unlock()
			return c, nil
		}
	}
	if !ok || st.start != id.Start || st.state == 'Z' {
		if c.pidfd != nil {
			c.pidfd.Close()
			c.pidfd = nil
		}
		c.left, c.late = true, !ok || st.start != id.Start // the number of one that nobody has waited for is still its own
		return c, ErrGone
	}
	return c, nil
}

// Ours reports whether the process is a child of this one, so that its exit status will be known.
func (c *Child) Ours() bool { return c.p != nil }

// ID of the first process of the tree, or of the one that is to follow it.
func (c *Child) ID() ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.main.PID != 0 {
		return c.main
	}
	return c.id
}

// Follow names the process of the tree that Wait waits for when the first one ends, as a daemon that goes to the
// background says. It reports whether pid is of the tree.
func (c *Child) Follow(pid int) bool {
	if pid == c.id.PID || !c.Has(pid) {
		return false
	}
	st, ok := readStat(pid)
	if !ok {
		return false
	}
	c.host.mu.Lock()
	c.host.direct[pid] = true // ours to wait for when it comes to us as an orphan
	c.host.mu.Unlock()
	c.mu.Lock()
	c.main = ID{pid, st.start}
	c.mu.Unlock()
	return true
}

// follow waits for the process that was named to follow the first; ok is false when there is none.
func (c *Child) follow(ctx context.Context) (e Exit, ok bool) {
	c.mu.Lock()
	id := c.main
	c.left = true
	c.mu.Unlock()
	st, there := readStat(id.PID)
	if id.PID == 0 || !there || st.start != id.Start {
		return Exit{}, false
	}
	defer func() {
		c.host.mu.Lock()
		delete(c.host.direct, id.PID)
		c.host.mu.Unlock()
	}()
	for t := time.NewTicker(scanEvery * 5); ; {
		if st, there = readStat(id.PID); !there || st.start != id.Start {
			t.Stop()
			return Exit{Unknown: true}, true
		}
		if st.ppid == c.host.self {
			t.Stop()
			break
		}
		if st.state == 'Z' {
			t.Stop()
			return Exit{Unknown: true}, true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return Exit{Unknown: true}, true
		}
	}
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return Exit{Unknown: true}, true
	}
	state, err := p.Wait()
	return c.exit(state, err), true
}

// Wait waits for the first process, not for the rest of the tree. Call it once.
func (c *Child) Wait(ctx context.Context) Exit {
	defer func() {
		c.mu.Lock()
		c.left = true
		c.mu.Unlock()
	}()
	e := Exit{Unknown: true}
	if c.p == nil {
		c.waitAdopted(ctx)
	} else {
		st, err := c.p.Wait()
		c.host.mu.Lock()
		delete(c.host.direct, c.id.PID)
		c.host.mu.Unlock()
		e = c.exit(st, err)
	}
	if next, ok := c.follow(ctx); ok {
		return next
	}
	return e
}

func (c *Child) exit(st *os.ProcessState, err error) Exit {
	if err != nil {
		return Exit{Unknown: true}
	}
	ws := st.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		e := Exit{Signal: strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG"), Core: ws.CoreDump()}
		e.OOM = ws.Signal() == unix.SIGKILL && c.outOfMemory()
		return e
	}
	code := ws.ExitStatus()
	return Exit{Code: &code, OOM: code == killedStatus && c.outOfMemory()}
}

// waitAdopted waits until the process is gone: by its descriptor, else (before Linux 5.3) by looking each second.
func (c *Child) waitAdopted(ctx context.Context) {
	if c.pidfd != nil {
		defer c.pidfd.Close()
		stop := context.AfterFunc(ctx, func() { c.pidfd.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		if rc, err := c.pidfd.SyscallConn(); err == nil {
			err = rc.Read(func(fd uintptr) bool {
				p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				n, _ := unix.Poll(p, 0)
				return n > 0
			})
			if err == nil || ctx.Err() != nil {
				return
			}
		}
	}
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		if st, ok := readStat(c.id.PID); !ok || st.start != c.id.Start || st.state == 'Z' {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Signal sends sig to the members of the tree, each checked to be the one that was seen.
func (c *Child) Signal(sig syscall.Signal) {
	for _, id := range c.Members(true) {
		signalID(id, sig)
	}
}

// SignalFirst sends sig to the first process alone.
func (c *Child) SignalFirst(sig syscall.Signal) { signalID(c.id, sig) }

func signalID(id ID, sig syscall.Signal) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	} else if errors.Is(err, unix.ESRCH) {
		return
	}
	if st, ok := readStat(id.PID); !ok || st.start != id.Start {
		return
	}
	if err == nil && unix.PidfdSendSignal(fd, sig, nil, 0) == nil {
		return
	}
	unix.Kill(id.PID, sig)
}

// Empty waits until nothing of the tree lives, or ctx ends; it reports whether that is so.
func (c *Child) Empty(ctx context.Context) bool {
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	for begin := time.Now(); ; {
		if len(c.Members(true)) == 0 {
			return true
		}
		// Most end at once; who takes long is looked at less often, but not later than a fraction of that.
		t.Reset(min(max(scanEvery, time.Since(begin)/10), 5*scanEvery))
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}

// Kill ends everything in the tree and returns who survives: processes that hang in the kernel. It goes on until
// nothing is found, since what is being killed may still fork.
func (c *Child) Kill() []ID {
	deadline := time.Now().Add(killLimit)
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	for {
		if c.group != "" {
			os.WriteFile(filepath.Join(c.group, "cgroup.kill"), []byte("1"), 0)
		}
		members := c.Members(true)
		if len(members) == 0 {
			return nil
		}
		for _, id := range members { // first hold them all: a stopped process can't fork away
			signalID(id, unix.SIGSTOP)
		}
		for _, id := range members {
			signalID(id, unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return c.Members(true)
		}
		<-t.C
	}
}

// Release forgets the tree: nothing of it is left, or nobody cares any more.
func (c *Child) Release() {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	delete(c.host.trees, c)
	c.dropCgroup()
	c.host.sweepLocked()
}

// dropCgroup needs the lock of the host.
func (c *Child) dropCgroup() {
	for _, dir := range append(c.extra, c.group) {
		if dir != "" && !removeGroups(dir) {
			c.host.left = append(c.host.left, dir)
		}
	}
}

// removeGroups removes a cgroup folder and those below; their files are not real. It reports whether it is gone.
func removeGroups(dir string) bool {
	list, _ := os.ReadDir(dir)
	for _, d := range list {
		if d.IsDir() {
			removeGroups(filepath.Join(dir, d.Name()))
		}
	}
	err := os.Remove(dir)
	return err == nil || errors.Is(err, os.ErrNotExist)
}

// groupPIDs returns the processes of a cgroup folder and those below.
func groupPIDs(dir string) (pids []int) {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, s := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	list, _ := os.ReadDir(dir)
	for _, d := range list {
		if d.IsDir() {
			pids = append(pids, groupPIDs(filepath.Join(dir, d.Name()))...)
		}
	}
	return pids
}

// FirstGone waits until the first process has ended, or ctx ends; it reports whether that is so.
func (c *Child) FirstGone(ctx context.Context) bool {
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	for {
		if st, ok := readStat(c.id.PID); !ok || st.start != c.id.Start || st.state == 'Z' || st.state == 'X' {
			return true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}
