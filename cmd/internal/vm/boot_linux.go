package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mark begins a line of the console that the guest means for Machine.Line; all others are the kernel's and its programs'.
const Mark = "@vm "

// Done is the line after Mark with which a guest says that it came to its end.
const Done = "done"

// Machine says what boots.
type Machine struct {
	System  *System
	Files   map[string]string // path in the guest → file here; /init must be one of them
	Modules []string          // by name; those they need come with them. The guest finds them in /modules, to load in order of name
	Args    []string          // of the kernel's command line; the guest reads /proc/cmdline
	Memory  int               // in MB; 0 is 256
	Share   string            // a folder here that the guest may mount read-only as 9p "share"; empty is none
	Line    func(line string) // takes what the guest said, in order, on one goroutine
}

// Boot runs a machine until it goes down or the context ends. With an error comes the end of the console.
//
// The guest's clock counts instructions, 2 ns each, as a processor of 500 MHz does that ends one each cycle, and jumps over
// idle times. So what the guest measures and what it waits for hardly depend on how busy this machine is.
func Boot(ctx context.Context, m Machine) error {
	a := m.System.Arch
	qemu, err := exec.LookPath(a.Qemu)
	if err != nil {
		return fmt.Errorf("%s: %w (apt-get install qemu-system): %w", a.Qemu, ErrNoQemu, err)
	}
	dir, err := os.MkdirTemp("", "skywire-vm-")
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeInitrd(initrd); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if m.Memory == 0 {
		m.Memory = 256
	}
	kernel := append([]string{"rdinit=/init", "console=" + a.Console, "quiet", "panic=-1"}, m.Args...)
	args := slices.Concat(a.Machine, []string{
		"-accel", "tcg", "-m", fmt.Sprint(m.Memory), "-nographic", "-no-reboot", "-nic", "none",
		"-kernel", filepath.Join(m.System.dir, "kernel"), "-initrd", initrd, "-append", strings.Join(kernel, " "),
	})
	args = append(args, m.clock()...)
	if m.Share != "" {
		args = append(args, "-virtfs", "local,path="+m.Share+",mount_tag=share,security_model=none,readonly=on,multidevs=remap")
	}
	// Nice: a machine computes for a minute beside tests that wait for an answer, and its own clock counts its instructions.
	c := exec.CommandContext(ctx, "nice", append([]string{"-n5", qemu}, args...)...)
	c.WaitDelay = 5 * time.Second
	out, err := c.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%s: %w", a.Qemu, err)
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		return fmt.Errorf("%s: %w", a.Qemu, err)
	}
	done, tail := m.listen(out)
	if err := c.Wait(); err != nil || !done {
		return errors.Join(fmt.Errorf("%s: %w", a.Name, ErrNoResult), err, ctx.Err(), fmt.Errorf("console: %s", tail))
	}
	return nil
}

// clock is how qemu tells the guest the time. A guest that waits for the share is not idle, so its clock must not jump; and
// that of the Malta board runs ten times too fast when it counts instructions.
func (m *Machine) clock() []string {
	switch {
	case m.System.Arch.Wall:
		return nil
	case m.Share != "":
		return []string{"-icount", "shift=1,sleep=on"}
	}
	return []string{"-icount", "shift=1,sleep=off"}
}

// listen reads the console to its end. It reports whether the guest said Done, and the last lines that were not for us.
func (m *Machine) listen(r io.Reader) (done bool, tail string) {
	const keep = 40
	var last []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := strings.TrimRight(s.Text(), "\r")
		if i := strings.Index(line, Mark); i >= 0 { // a message of the kernel may stand before it
			line = line[i+len(Mark):]
			done = done || line == Done
			if m.Line != nil {
				m.Line(line)
			}
			continue
		}
		last = append(last[max(0, len(last)-keep+1):], line)
	}
	_, _ = io.Copy(io.Discard, r) // qemu must not hang on a full pipe after a line without end
	return done, strings.Join(last, "\n")
}

func (m *Machine) writeInitrd(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(w)
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "etc", "root"} {
		a.dir(d)
	}
	a.char("dev/console", 5, 1)
	busybox, err := os.ReadFile(filepath.Join(m.System.dir, "busybox"))
	if err != nil {
		return err
	}
	a.file("bin/busybox", busybox)
	modules, err := m.System.modules(m.Modules)
	if err != nil {
		return err
	}
	for i, mod := range modules {
		a.file(fmt.Sprintf("modules/%03d-%s.ko", i, mod.name), mod.data)
	}
	for to, from := range m.Files {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		a.file(to, data)
	}
	return errors.Join(a.close(), w.Flush())
}
