//go:build unix && !mini

package applets

import (
	"os/exec"
	"syscall"
)

// ownGroup lets all that a hook starts be ended with it.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}
