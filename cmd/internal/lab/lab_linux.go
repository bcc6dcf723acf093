package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// commandLimit is how long a short command (ip, nft, sysctl) may take before the lab gives up.
const commandLimit = 20 * time.Second

// Config says what a lab is made from.
type Config struct {
	Name   string                           // short; part of the namespaces' names
	Binary string                           // the skywire binary that Box.Skywire runs; may be empty
	Log    func(format string, args ...any) // progress; nil is silent
	Dir    string                           // holds state, logs and sockets; empty: a temporary folder, removed by Close
}

// Lab is a set of namespaces and of programs in them.
type Lab struct {
	cfg    Config
	prefix string
	dir    string
	owned  bool // dir is removed by Close
	guard  *exec.Cmd
	leash  *os.File // its end lets the guard clean up

	mu    sync.Mutex // guards the fields below
	boxes []*Box
	procs []*Process
	stops []func() // what Close calls
	ended bool
}

// New makes an empty lab. The caller must Close it.
func New(cfg Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	for _, tool := range []string{"ip", "nft", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is missing (apt-get install iproute2 nftables procps): %w", tool, err)
		}
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	l := &Lab{cfg: cfg, prefix: fmt.Sprintf("lab-%s-%d-", cfg.Name, os.Getpid()), dir: cfg.Dir}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "skylab-")
		if err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
		l.dir, l.owned = dir, true
	}
	if err := l.startGuard(); err != nil {
		return nil, err
	}
	return l, nil
}

// cleanup is what the guard runs: $1 is the prefix of the namespaces, $2 the folder to remove, or "".
const cleanup = `trap '' INT TERM HUP
cat >/dev/null
for round in 1 2 3; do
  for ns in $(ip netns list 2>/dev/null | cut -d' ' -f1 | grep "^$1"); do
    pids=$(ip netns pids "$ns" 2>/dev/null); [ -z "$pids" ] || kill -9 $pids 2>/dev/null
    ip netns del "$ns" 2>/dev/null; rm -rf "/etc/netns/$ns"
  done
done
[ -z "$2" ] || rm -rf "$2"`

// startGuard starts the process that cleans up when this one is gone: it waits for the end of a pipe.
func (l *Lab) startGuard() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer r.Close()
	dir := ""
	if l.owned {
		dir = l.dir
	}
	l.guard = exec.Command("sh", "-c", cleanup, "sh", l.prefix, dir)
	l.guard.Stdin = r
	l.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C must not reach it
	if err := l.guard.Start(); err != nil {
		return errors.Join(fmt.Errorf("guard: %w", err), w.Close())
	}
	l.leash = w
	return nil
}

// Close ends every program, deletes every namespace and removes the folder. It may be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	procs, stops, ended := l.procs, l.stops, l.ended
	l.ended = true
	l.mu.Unlock()
	if ended {
		return nil
	}
	for _, p := range procs {
		p.Signal(syscall.SIGTERM)
	}
	deadline := time.Now().Add(3 * time.Second)
	for _, p := range procs {
		p.waitUntil(deadline)
		p.Kill()
	}
	for _, stop := range stops {
		stop()
	}
	err := l.leash.Close() // the guard does the rest
	return errors.Join(err, l.guard.Wait())
}

// Dir is the folder of the lab; every box has a subfolder of its name.
func (l *Lab) Dir() string { return l.dir }

// Logf writes a line of progress.
func (l *Lab) Logf(format string, args ...any) { l.cfg.Log(format, args...) }

// Box adds a namespace with loopback up, and a folder with state/ and run/.
func (l *Lab) Box(name string) (*Box, error) {
	if strings.Contains(name, "-") {
		return nil, fmt.Errorf("box %s: a name has no dash", name)
	}
	b := &Box{lab: l, Name: name, NS: l.prefix + name, Dir: filepath.Join(l.dir, name)}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("box %s: %w", name, err)
	}
	// ip netns exec shows a namespace its own /etc/resolv.conf, so that no program in it can touch the machine's.
	etc := filepath.Join("/etc/netns", b.NS)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return nil, fmt.Errorf("box %s: %w", name, err)
	}
	if err := b.WriteEtc("resolv.conf", "# "+b.NS+"\n"); err != nil {
		return nil, fmt.Errorf("box %s: %w", name, err)
	}
	if err := command("ip", "netns", "add", b.NS); err != nil {
		return nil, fmt.Errorf("box %s: %w", name, err)
	}
	l.mu.Lock()
	l.boxes = append(l.boxes, b)
	l.mu.Unlock()
	// IPv6 must not wait for duplicate address detection: tests would.
	for _, s := range []string{"net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0"} {
		if err := b.Sysctl(s); err != nil {
			return nil, err
		}
	}
	return b, b.IP("link set lo up")
}

// Boxes makes several boxes.
func (l *Lab) Boxes(names ...string) (map[string]*Box, error) {
	m := make(map[string]*Box, len(names))
	for _, n := range names {
		b, err := l.Box(n)
		if err != nil {
			return nil, err
		}
		m[n] = b
	}
	return m, nil
}

// Sweep removes what labs of processes that are gone left behind, should even their guards have been killed.
func Sweep() error {
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	var all error
	for line := range strings.Lines(string(out)) {
		ns, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		part := strings.Split(ns, "-")
		if len(part) < 4 || part[0] != "lab" {
			continue
		}
		if _, err := os.Stat("/proc/" + part[len(part)-2]); err == nil {
			continue
		}
		all = errors.Join(all, command("ip", "netns", "del", ns), os.RemoveAll(filepath.Join("/etc/netns", ns)))
	}
	return all
}

func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
