package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// TestNotOurs is the trap of T-S3: a number in the state file that belongs to somebody else by now is neither adopted nor
// ended, nor are its children, whatever the file says else.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	here := proc.BootID()
	tests := map[string]struct {
		boot string
		of   func(right uint64) uint64 // start time in the file
		kept bool                      // the entry, as one that has ended
	}{
		"an earlier start time": {here, func(right uint64) uint64 { return right - 1 }, true},
		"a later start time":    {here, func(right uint64) uint64 { return right + 1 }, true},
		"no start time":         {here, func(uint64) uint64 { return 0 }, true},
		"another boot":          {"00000000-0000-0000-0000-000000000000", func(right uint64) uint64 { return right }, false},
		"no boot":               {"", func(right uint64) uint64 { return right }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shells)
			stranger, child := bystander(t)
			id := proc.ID{PID: stranger, Start: tt.of(startOf(t, stranger))}
			w.leave(saved{LastID: 7, Boot: tt.boot, Apps: []savedApp{
				{ID: 7, App: "sh", State: Running, Process: id, Mark: "none", Asked: true}, // and it was being stopped
			}})
			s, stop := w.run()
			if _, err := s.Stop(t.Context(), "7", 0); !errors.Is(err, signal.ErrNotRunning) && !errors.Is(err, signal.ErrNotFound) && err != nil {
				t.Errorf("stop: %v", err)
			}
			if tt.kept {
				eventually(t, func() error {
					if it := stateOf(t, s, 7); it.State != Failed && it.State != Exited || it.PID != nil {
						return fmt.Errorf("%+v", it)
					}
					return nil
				})
			} else if list, err := s.List(t.Context(), true); err != nil || len(list) != 0 {
				t.Errorf("%+v, %v", list, err)
			}
			if next := s.mustStart(t, "sh"); tt.kept && next != 8 {
				t.Errorf("the next id is %d", next)
			}
			stop()
			for _, pid := range []int{stranger, child} {
				if err := syscall.Kill(pid, 0); err != nil || stateIn(t, pid) == "Z" {
					t.Errorf("stranger %d was ended: %v", pid, err)
				}
			}
		})
	}
}

// bystander starts a process that leads a session and a group, with a child, which is none of viscript's.
func bystander(t *testing.T) (pid, child int) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if child, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid, child
}

// leave writes what a viscript that was killed would have left.
func (w *world) leave(st saved) {
	w.t.Helper()
	b, err := json.Marshal(st)
	if err := errors.Join(err, os.MkdirAll(w.config.RunDir, 0o700), os.WriteFile(filepath.Join(w.config.RunDir, "viscript.json"), b, 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// statOf returns the fields of /proc/PID/stat from the state on.
func statOf(t *testing.T, pid int) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

func stateIn(t *testing.T, pid int) string {
	t.Helper()
	return statOf(t, pid)[0]
}

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(statOf(t, pid)[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestManyGone: apps that ended with the viscript that was killed are let go of entirely, however soon their end is seen: the next
// viscript, told to end, does.
func TestManyGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shells)
	left := saved{LastID: 200, Boot: proc.BootID()}
	gone := proc.ID{PID: os.Getpid(), Start: 1} // the number is somebody else's by now
	for id := uint64(1); id <= left.LastID; id++ {
		left.Apps = append(left.Apps, savedApp{ID: id, App: "sh", State: Running, Process: gone, Mark: random()})
	}
	w.leave(left)
	s, stop := w.run()
	eventually(t, func() error {
		list, err := s.List(t.Context(), false)
		for _, it := range list {
			if it.State != Failed && it.State != Exited {
				err = fmt.Errorf("%+v", it)
			}
		}
		return err
	})
	stop()
}
