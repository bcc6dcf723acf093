package lab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/meshtest/emulator"
)

func newLab(t *testing.T, name string) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l, err := New(Config{Name: name, Log: t.Logf, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left := namespaces(t, l.prefix); len(left) > 0 {
			t.Errorf("namespaces left: %v", left)
		}
	})
	return l
}

func namespaces(t *testing.T, prefix string) []string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, prefix) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestNAT(t *testing.T) {
	t.Parallel()
	l := newLab(t, "nat")
	b, err := l.Boxes("home", "router", "far")
	must(t, err,
		l.Wire(End{b["home"], "eth0", []string{"192.168.7.2/24"}}, End{b["router"], "lan", []string{"192.168.7.1/24"}}),
		l.Wire(End{b["router"], "wan", []string{"203.0.113.1/24", "fd99::1/64"}}, End{b["far"], "eth0", []string{"203.0.113.9/24", "fd99::9/64"}}),
		b["home"].IP("route add default via 192.168.7.1"), b["router"].NAT("wan"))
	if _, err := b["home"].Exec(t.Context(), "ping", "-c1", "-W2", "203.0.113.9"); err != nil {
		t.Error("out through the NAT:", err)
	}
	if _, err := b["router"].Exec(t.Context(), "ping", "-c1", "-W2", "fd99::9"); err != nil {
		t.Error("IPv6:", err)
	}
	must(t, b["far"].IP("route add 192.168.7.0/24 via 203.0.113.1"))
	if _, err := b["far"].Exec(t.Context(), "ping", "-c1", "-W1", "192.168.7.2"); err == nil {
		t.Error("a stranger reaches the inside")
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	l := newLab(t, "proc")
	b, err := l.Box("a")
	must(t, err)
	p, err := b.Start("sleeper", "sh", "-c", "echo $SKYWIRE_STATE; sleep 100 & wait")
	must(t, err, Wait(t.Context(), 5*time.Second, "first line", func(context.Context) error {
		if p.Output() != b.State()+"\n" {
			return errors.New("not yet")
		}
		return nil
	}))
	if p.RSS() == 0 {
		t.Error("no memory figure")
	}
	must(t, p.Stop(5*time.Second))
	q, err := b.Start("stubborn", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	must(t, err)
	q.Kill()
	if q.ExitCode() != -1 {
		t.Error("exit code", q.ExitCode())
	}
	err = Wait(t.Context(), 50*time.Millisecond, "never", func(context.Context) error { return errors.New("no") })
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "never: timed out after 50ms: no") {
		t.Error(err)
	}
}

func TestBadWire(t *testing.T) {
	t.Parallel()
	l := newLab(t, "bad")
	b, err := l.Boxes("a", "b")
	must(t, err)
	p := emulator.Profile{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Duplicate: 0.5}
	link, err := l.BadWire(End{b["a"], "tap0", []string{"10.9.9.1/24"}}, End{b["b"], "tap0", []string{"10.9.9.2/24"}}, p, p, 1)
	must(t, err)
	out, err := b["a"].Exec(t.Context(), "ping", "-c10", "-i0.05", "-W2", "10.9.9.2")
	must(t, err)
	if !strings.Contains(out, "DUP!") || !strings.Contains(out, " 0% packet loss") {
		t.Error(out)
	}
	if _, low, ok := strings.Cut(out, "mdev = "); !ok || low < "100." {
		t.Error(out)
	}
	must(t, link.Set(emulator.Profile{Loss: 1}, p))
	if _, err := b["a"].Exec(t.Context(), "ping", "-c2", "-i0.05", "-W1", "10.9.9.2"); err == nil {
		t.Error("all is lost, yet it answers")
	}
	if ab, _ := link.Stats(); ab.Lost == 0 || ab.Duplicated == 0 {
		t.Errorf("%+v", ab)
	}
}

func TestEnter(t *testing.T) {
	t.Parallel()
	l := newLab(t, "enter")
	b, err := l.Box("a")
	must(t, err, b.IP("addr add 10.77.0.1/32 dev lo"))
	fd := -1
	must(t, b.Enter(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 77, 0, 1}})
	}))
	f := os.NewFile(uintptr(fd), "udp")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	must(t, err)
	defer c.Close()
	if c.LocalAddr().(*net.UDPAddr).IP.String() != "10.77.0.1" {
		t.Error(c.LocalAddr())
	}
}

// TestGuard kills a program that has a lab with -9 and looks whether the guard removes the lab.
func TestGuard(t *testing.T) {
	if os.Getenv("LAB_VICTIM") != "" {
		l, err := New(Config{Name: "victim"})
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Box("a")
		must(t, err)
		_, err = b.Start("sleeper", "sleep", "100")
		must(t, err, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c := exec.Command(os.Args[0], "-test.run=^TestGuard$")
	c.Env = append(os.Environ(), "LAB_VICTIM=1")
	if err := c.Run(); err == nil {
		t.Fatal("the victim survived")
	}
	prefix := "lab-victim-"
	must(t, Wait(t.Context(), 10*time.Second, "guard", func(context.Context) error {
		if left := namespaces(t, prefix); len(left) > 0 {
			return errors.New(strings.Join(left, " "))
		}
		return nil
	}))
}

// TestNumberOfAnother ends a program whose number, and its group's, another has by now, as happens where numbers come round within
// minutes. In a process namespace of its own, where it decides who gets which number.
func TestNumberOfAnother(t *testing.T) {
	if os.Getenv("LAB_NUMBERS") == "" {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		// The shell is process 1 there and waits for orphans.
		c := exec.Command("sh", "-c", `"$0" -test.run='^TestNumberOfAnother$'; exit $?`, os.Args[0])
		c.Env = append(os.Environ(), "LAB_NUMBERS=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	must(t, unix.Mount("", "/proc", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	l := newLab(t, "numbers")
	b, err := l.Boxes("a", "b")
	must(t, err)
	short, err := b["a"].Start("short", "true")
	must(t, err)
	<-short.Done()
	// One that leads the group of that number, and one that is left of such a group, in another box.
	for name, line := range map[string]string{"leader": "sleep 1000", "rest": "sleep 1000 & exit"} {
		var other *Process
		for range 100 { // other threads of this program take numbers too
			must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(short.PID()-1)), 0))
			other, err = b["b"].Start(name, "sh", "-c", "echo up; "+line)
			must(t, err)
			if other.PID() == short.PID() {
				break
			}
			other.Kill()
		}
		if other.PID() != short.PID() {
			t.Fatal("numbers can't be given here")
		}
		if name == "rest" {
			<-other.Done()
		}
		short.Kill()
		if !lives(other.PID()) {
			t.Errorf("%s was killed for another: %s", name, other.Output())
		}
		other.Kill()
		must(t, Wait(t.Context(), 5*time.Second, name+" ends by its own", func(context.Context) error {
			if lives(other.PID()) {
				return errors.New("it lives")
			}
			return nil
		}))
	}
}

// lives reports whether a process of the group lives.
func lives(group int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, _ := os.ReadFile(file)
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // state, parent, group
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}
