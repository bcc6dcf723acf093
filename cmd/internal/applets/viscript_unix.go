//go:build unix

package applets

import (
	"os"
	"os/signal"
	"syscall"
)

// replaceSelf has the file at path take over this process, with the arguments that it was started with.
func replaceSelf(path string) func(environ []string) error {
	return func(environ []string) error {
		return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, os.Args, environ)}
	}
}

// childEnded tells when a child of this process has ended. One waiting signal is enough: whoever hears it looks at all.
func childEnded() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCHLD)
	return c, func() { signal.Stop(c) }
}

// reloadAsked tells when somebody asks to read config.yaml again, as procd and systemd do.
func reloadAsked() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
