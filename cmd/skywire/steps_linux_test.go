package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
)

// A step of a program is a moment at which it changes what outlives it: before and after each call that writes to a file or a socket,
// or syncs a file. Between two steps a crash at one moment looks to the disk and to others like a crash at any other.

// stepsVariable tells TestStepsHelper what to do: "PID DONE KILL".
const stepsVariable = "SKYWIRE_TEST_STEPS"

// stepper counts the steps of a program in a box and kills it at one of them, by ptrace. The program may be started several times:
// the count goes on.
type stepper struct {
	w    *world
	box  string
	kill int // 0: at none

	helper chan struct{} // closed when the helper of the newest start has ended

	mu     sync.Mutex // guards the fields below
	steps  int
	killed string // the step, once it was done
}

// start starts an applet in the box under the stepper's eyes, from its first instruction on.
func (s *stepper) start(what string, args ...string) *lab.Process {
	s.w.t.Helper()
	b := s.w.box[s.box]
	b.Wrap("sh", "-c", `kill -STOP $$; exec "$@"`, "sh")
	p := s.w.start(s.box, what, args...)
	b.Wrap()
	kill := s.kill
	if s.dead() {
		kill = 0
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStepsHelper$") // it ends with the program
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", stepsVariable, p.PID(), s.count(), kill))
	out, err := c.StdoutPipe()
	s.w.must(err)
	s.w.must(c.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "traced" {
		text := lines.Text()
		p.Kill()
		_ = c.Wait()
		if strings.HasPrefix(text, "refused") {
			s.w.t.Skip("needs ptrace: ", text)
		}
		s.w.t.Fatalf("the helper said %q", text)
	}
	done := make(chan struct{})
	s.helper = done
	go func() { // ends with the program, which the lab ends
		defer close(done)
		for lines.Scan() {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			s.mu.Lock()
			switch word {
			case "step":
				s.steps++
			case "kill":
				s.killed = rest
			}
			s.mu.Unlock()
		}
		_ = c.Wait()
	}()
	s.w.t.Cleanup(func() {
		p.Kill()
		<-done
	})
	return p
}

func (s *stepper) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steps
}

// settle returns when all is known of a program that has ended.
func (s *stepper) settle() {
	if s.helper != nil {
		<-s.helper
	}
}

// dead tells whether the step to kill at was reached.
func (s *stepper) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed != ""
}

// TestStepsHelper is the other process of a stepper: it holds the threads of a program at every call. It is one of its own since a
// parent can't both wait for a child and trace it by another of its threads.
func TestStepsHelper(t *testing.T) {
	var h stepsHelper
	if n, _ := fmt.Sscan(os.Getenv(stepsVariable), &h.pid, &h.steps, &h.kill); n != 3 {
		return
	}
	runtime.LockOSThread() // the tracer is one thread
	if err := h.begin(t.Context()); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		fmt.Println("refused", err)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	fmt.Println("traced")
	h.follow()
}

type stepsHelper struct {
	pid, steps, kill int
	calls            map[int]string // by thread: the call that it is in
}

func ptrace(request, pid int, addr, data uintptr) error {
	if _, _, e := syscall.Syscall6(syscall.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0); e != 0 {
		return fmt.Errorf("ptrace: %w", e)
	}
	return nil
}

// begin takes hold of a program that has stopped itself, and lets it go on.
func (h *stepsHelper) begin(ctx context.Context) error {
	h.calls = map[int]string{}
	err := lab.Wait(ctx, patience, "the program stops itself", func(context.Context) error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid))
		if _, rest, _ := strings.Cut(string(b), ") "); err == nil && !strings.HasPrefix(rest, "T") {
			err = errors.New("it runs")
		}
		return err
	})
	if err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := ptrace(unix.PTRACE_SEIZE, h.pid, 0, options); err != nil {
		return err
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, h.pid, 0, 0); err != nil {
		return err
	}
	return syscall.Kill(h.pid, syscall.SIGCONT)
}

// follow goes on until all threads have ended.
func (h *stepsHelper) follow() {
	for {
		var s syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &s, unix.WALL, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return // no thread is left
		}
		if !s.Stopped() {
			continue
		}
		pass := uintptr(0)
		switch sig := s.StopSignal(); {
		case sig == syscall.SIGTRAP|0x80:
			h.stop(tid)
		case uint32(s)>>16 == 0: // no event of ptrace's own
			pass = uintptr(sig)
		}
		_ = ptrace(unix.PTRACE_SYSCALL, tid, 0, pass) // the thread may be gone
	}
}

// stop is called when a thread enters or leaves a call.
func (h *stepsHelper) stop(tid int) {
	var info struct { // struct ptrace_syscall_info
		op     uint8
		_      [3]byte
		_      uint32
		_, _   uint64
		nr, fd uint64
		_      [7]uint64
	}
	if err := ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info))); err != nil {
		return
	}
	const entry, exit = 1, 2
	switch info.op {
	case entry:
		if what := h.lasting(info.nr, info.fd); what != "" {
			h.calls[tid] = what
			h.step("before " + what)
		}
	case exit:
		if what := h.calls[tid]; what != "" {
			delete(h.calls, tid)
			h.step("after " + what)
		}
	}
}

func (h *stepsHelper) step(what string) {
	h.steps++
	if h.steps == h.kill {
		fmt.Println("kill", what)
		_ = syscall.Kill(h.pid, syscall.SIGKILL)
	} else if h.kill == 0 || h.steps < h.kill {
		fmt.Println("step", what)
	}
}

// lasting names a call that changes something outside the program; "" for others.
func (h *stepsHelper) lasting(nr, fd uint64) string {
	name := map[uint64]string{
		unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "write", unix.SYS_WRITEV: "write", unix.SYS_SENDMSG: "write", unix.SYS_SENDTO: "write",
		unix.SYS_FDATASYNC: "sync", unix.SYS_FSYNC: "sync", unix.SYS_FTRUNCATE: "truncate", unix.SYS_RENAMEAT: "rename", unix.SYS_UNLINKAT: "unlink",
	}[nr]
	if name == "" || name == "rename" || name == "unlink" {
		return name
	}
	file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.pid, fd))
	switch {
	case err != nil || strings.HasPrefix(file, "anon_inode:") || strings.HasPrefix(file, "pipe:") || strings.HasSuffix(file, ".log"):
		return "" // the runtime's own, and the log
	case strings.HasPrefix(file, "socket:"):
		return name + " socket"
	case !strings.HasPrefix(file, "/"), strings.HasPrefix(file, "/dev/"), strings.HasPrefix(file, "/proc/"), strings.HasPrefix(file, "/sys/"):
		return ""
	}
	return name + " " + filepath.Base(file)
}
