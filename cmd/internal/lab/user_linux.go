package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideMark tells the second run of Reexec that it is inside.
const insideMark = "SKYLAB_INSIDE"

// Reexec makes an ordinary user root of namespaces of his own, where the kernel allows it, by running this program
// again in them. done says that this has happened and the caller should exit with code. As root it does nothing.
func Reexec() (done bool, code int, err error) {
	if os.Getenv(insideMark) != "" {
		return false, 0, settleInside()
	}
	if os.Geteuid() == 0 {
		return false, 0, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, 0, fmt.Errorf("find this program: %w", err)
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideMark+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	// A terminal's Ctrl-C reaches both; the one inside cleans up and decides the status.
	signal.Ignore(os.Interrupt)
	defer signal.Reset(os.Interrupt)
	if err := c.Start(); err != nil {
		return false, 0, fmt.Errorf("this kernel lets no ordinary user make namespaces; run it as root: %w", err)
	}
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return true, exit.ExitCode(), nil
	}
	return true, 0, err
}

// settleInside gives the new mount namespace a /run of its own, where ip keeps the names of namespaces, and an /etc that
// can be written without touching the machine's: /etc/netns holds what each box has of its own.
func settleInside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("lab", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := errors.Join(os.MkdirAll("/run/etc/netns", 0o755), os.Mkdir("/run/etc.work", 0o755)); err != nil {
		return fmt.Errorf("make folders: %w", err)
	}
	if err := unix.Mount("lab", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work"); err != nil {
		return fmt.Errorf("mount an overlay on /etc (the kernel must allow it to users, 5.11 or newer): %w", err)
	}
	return nil
}
