package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs in a box. Its output goes to a file.
type Process struct {
	Name string
	Box  *Box
	Log  string // the file with stdout and stderr

	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done
}

// Start starts a program in the box under a name; its output is appended to BOX/NAME.log.
func (b *Box) Start(name, program string, args ...string) (*Process, error) {
	p := &Process{Name: name, Box: b, Log: filepath.Join(b.Dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", name, b.Name, err)
	}
	defer out.Close()
	p.cmd = b.Command(context.Background(), program, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", name, b.Name, err)
	}
	go func() { // ends with the process, which Close ends
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	b.lab.mu.Lock()
	b.lab.procs = append(b.lab.procs, p)
	b.lab.mu.Unlock()
	return p, nil
}

// StartSkywire starts the lab's binary; see Start.
func (b *Box) StartSkywire(name string, args ...string) (*Process, error) {
	return b.Start(name, b.lab.cfg.Binary, args...)
}

// PID is the process id; ip netns exec replaces itself by the program, so it is the program's own.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program alone.
func (p *Process) Signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(s)
	}
}

// Kill ends the program and what it started with SIGKILL and waits for the program.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	p.killRest()
}

// killRest ends what is left of the program's group in the box. It must not trust the group's number: the program was waited for,
// perhaps minutes ago, and once its group is empty the kernel gives the number to others, of other labs or none.
func (p *Process) killRest() {
	number := p.cmd.Process.Pid
	if syscall.Kill(number, 0) == nil || syscall.Kill(-number, 0) != nil {
		return // somebody new has the number, so nobody of the group is left; or there is no such group
	}
	home, err := os.Stat("/run/netns/" + p.Box.NS)
	if err != nil {
		return
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // state, parent, group
		if err != nil || len(f) < 3 || f[2] != strconv.Itoa(number) {
			continue
		}
		dir := filepath.Dir(file)
		if at, err := os.Stat(dir + "/ns/net"); err != nil || !os.SameFile(at, home) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// KillAlone sends SIGKILL to the program and leaves its children.
func (p *Process) KillAlone() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop sends SIGTERM and waits up to limit before Kill.
func (p *Process) Stop(limit time.Duration) error {
	p.Signal(syscall.SIGTERM)
	if !p.waitUntil(time.Now().Add(limit)) {
		p.Kill()
		return fmt.Errorf("%s in %s did not stop within %v", p.Name, p.Box.Name, limit)
	}
	return nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode waits for the program and returns its status, or -1 when a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) waitUntil(deadline time.Time) bool {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// Output is what the program has written so far.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Tail is the last n lines of Output.
func (p *Process) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// RSS is the program's resident memory in bytes, 0 when it is gone.
func (p *Process) RSS() uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	n, err := strconv.ParseUint(string(f[1]), 10, 64)
	if err != nil {
		return 0
	}
	return n * uint64(os.Getpagesize())
}
