package proc

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// startConfined starts a program with fewer privileges than this process has. Bounding set and no_new_privs belong to a
// thread and are inherited by what it starts, so a thread is taken that ends afterwards.
func startConfined(s Spec, start func() (*os.Process, error)) (p *os.Process, err error) {
	if s.Caps == nil && !s.NoNewPrivs {
		return start()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = confine(s); err == nil {
			p, err = start()
		}
	}()
	<-done
	return p, err
}

// confine takes from the calling thread what the program may not have.
func confine(s Spec) error {
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	if s.Caps == nil || os.Geteuid() != 0 { // others have nothing to drop, and may not
		return nil
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if slices.Contains(s.Caps, c) {
			continue
		}
		// An older kernel does not know the last ones.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// ambient are the capabilities to give to a user other than root.
func (s Spec) ambient() []uintptr {
	if s.User == nil || s.User.UID == 0 {
		return nil
	}
	var list []uintptr
	for _, c := range s.Caps {
		list = append(list, uintptr(c))
	}
	return list
}
