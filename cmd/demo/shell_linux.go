package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ctrlC is what a terminal in raw mode sends for Ctrl-C.
const ctrlC = 0x03

// shell hands the terminal to viscript on the client until the user leaves it or presses Ctrl-C. The shell by itself takes
// Ctrl-C for "give up this line", so it gets a terminal of its own and this one is watched.
func (d *demo) shell(ctx context.Context) error {
	fmt.Fprint(d.out, "\nThis is the viscript shell of the client; everything above still runs. Try: ps, ru 1, logs node, help vpn.\n"+
		"exit, Ctrl-D or Ctrl-C ends it all.\n\n")
	for _, side := range [][2]string{{"client", "exit"}, {"exit", "client"}} {
		fmt.Fprintf(d.out, "In a terminal of its own, the %s's part of a chat: %s\n", side[0], d.outside(side[0], "chat", side[1]))
	}
	fmt.Fprintln(d.out)
	d.showPage(ctx)
	c := d.box["client"].Interactive(ctx, filepath.Join(d.box["client"].Dir, "bin", "viscript"))
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		return ignoreExit(c.Run())
	}
	master, slave, err := openPTY()
	if err != nil {
		return fmt.Errorf("terminal for the shell: %w", err)
	}
	defer master.Close()
	old, err := term.MakeRaw(in)
	if err != nil {
		return errors.Join(fmt.Errorf("terminal: %w", err), slave.Close())
	}
	defer func() { _ = term.Restore(in, old) }() // nothing is left to do about a terminal that is gone
	if w, h, err := term.GetSize(in); err == nil {
		_ = unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(w), Row: uint16(h)})
	}
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.Start()
	if err = closing(slave, err); err != nil {
		return err
	}
	go func() { _ = relay(master, os.Stdin, func() { _ = c.Cancel() }) }() // blocks in a read of the terminal; ends with the process
	_, _ = io.Copy(os.Stdout, master)                                      // ends with EIO when the shell has ended
	return ignoreExit(c.Wait())
}

// relay copies what is typed and calls end at the first Ctrl-C.
func relay(to io.Writer, from io.Reader, end func()) error {
	buf := make([]byte, 1024)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		for _, b := range buf[:n] {
			if b == ctrlC {
				end()
				return nil
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// ignoreExit drops the status of the shell, which is the user's affair.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// openPTY makes a pair of pseudo-terminal ends.
func openPTY() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	if slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}
