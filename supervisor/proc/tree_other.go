//go:build unix && !linux

package proc

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is a process group: what leaves it is lost sight of.
type tree struct{ group int }

// startTree starts a process in a group of its own.
func startTree(path string, args []string, attr *os.ProcAttr) (*os.Process, *tree, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		return nil, nil, err
	}
	return p, &tree{p.Pid}, nil
}

// pids is the group while somebody of it lives: its members are not listed here.
func (t *tree) pids() []int {
	if syscall.Kill(-t.group, 0) == syscall.ESRCH {
		return nil
	}
	return []int{t.group}
}

func (t *tree) signal(_ *os.Process, sig syscall.Signal) { syscall.Kill(-t.group, sig) }

func (t *tree) kill(*os.Process) { syscall.Kill(-t.group, syscall.SIGKILL) }

func (t *tree) close() {}

// exit is how the first process ended.
func (t *tree) exit(st *os.ProcessState) Exit {
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return Exit{Signal: strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG"), Core: ws.CoreDump()}
	}
	code := st.ExitCode()
	return Exit{Code: &code}
}

// usage is not told of a group here.
func (t *tree) usage(*Usage) {}
