package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Box is one namespace: a computer of the lab.
type Box struct {
	Name string
	NS   string // the namespace's name, as ip netns knows it
	Dir  string // state, sockets, logs of what runs in it

	lab  *Lab
	env  []string
	wrap []string
}

// Setenv adds NAME=VALUE to the environment of programs started later in the box.
func (b *Box) Setenv(name, value string) { b.env = append(b.env, name+"="+value) }

// Wrap has programs that are started later in the box run by another one, which must replace itself by them: taskset, nice.
func (b *Box) Wrap(words ...string) { b.wrap = words }

// State and Run are the box's folders for skywire.
func (b *Box) State() string { return filepath.Join(b.Dir, "state") }

// Run is the folder of sockets; see State.
func (b *Box) Run() string { return filepath.Join(b.Dir, "run") }

// Config is the path of the box's config.yaml, which may not exist.
func (b *Box) Config() string { return filepath.Join(b.Dir, "config.yaml") }

// WriteConfig writes the box's config.yaml.
func (b *Box) WriteConfig(text string) error { return os.WriteFile(b.Config(), []byte(text), 0o600) }

// Command prepares a program in the box: its own process group, the box's folders in its environment.
func (b *Box) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := slices.Concat([]string{"netns", "exec", b.NS}, b.wrap, []string{name}, args)
	c := exec.CommandContext(ctx, "ip", words...)
	c.Dir = b.Dir
	c.Env = append(os.Environ(), "SKYWIRE_STATE="+b.State(), "SKYWIRE_RUN="+b.Run(), "HOME="+b.Dir, "NO_COLOR=1")
	if _, err := os.Stat(b.Config()); err == nil {
		c.Env = append(c.Env, "SKYWIRE_CONFIG="+b.Config())
	}
	c.Env = append(c.Env, b.env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	return c
}

// Exec runs a program in the box to its end and returns what it wrote to stdout; the error holds stderr.
func (b *Box) Exec(ctx context.Context, name string, args ...string) (string, error) {
	c := b.Command(ctx, name, args...)
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s %s: %w: %s", b.Name, filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Shell runs a shell line in the box; see Exec.
func (b *Box) Shell(ctx context.Context, line string) (string, error) {
	return b.Exec(ctx, "sh", "-c", line)
}

// Skywire runs the lab's binary in the box; see Exec.
func (b *Box) Skywire(ctx context.Context, args ...string) (string, error) {
	return b.Exec(ctx, b.lab.cfg.Binary, args...)
}

// SkywireJSON runs the lab's binary with --json and decodes what it prints.
func (b *Box) SkywireJSON(ctx context.Context, into any, args ...string) error {
	out, err := b.Skywire(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s: %s: %w in %q", b.Name, strings.Join(args, " "), err, out)
	}
	return nil
}

// IP runs one line of ip in the namespace.
func (b *Box) IP(line string) error {
	return command("ip", append([]string{"-n", b.NS}, strings.Fields(line)...)...)
}

// Sysctl sets NAME=VALUE in the namespace.
func (b *Box) Sysctl(assignment string) error {
	return command("ip", "netns", "exec", b.NS, "sysctl", "-q", "-w", assignment)
}

// NFT runs a ruleset in the namespace.
func (b *Box) NFT(ruleset string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	c := b.Command(ctx, "nft", "-f", "-")
	c.Stdin = strings.NewReader(ruleset)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: nft: %w: %s", b.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Forward lets the box route between its interfaces, IPv4 and IPv6.
func (b *Box) Forward() error {
	if err := b.Sysctl("net.ipv4.ip_forward=1"); err != nil {
		return err
	}
	return b.Sysctl("net.ipv6.conf.all.forwarding=1")
}

// NAT makes the box a home router: it forwards, hides what leaves by the outer interface behind its own address, and
// lets nothing in from there that nobody inside asked for.
func (b *Box) NAT(outer string) error {
	if err := b.Forward(); err != nil {
		return err
	}
	return b.NFT(fmt.Sprintf(`table inet lab_nat {
	chain post { type nat hook postrouting priority 100; oifname "%[1]s" masquerade; }
	chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; oifname "%[1]s" accept; }
	chain input { type filter hook input priority 0; policy accept; iifname "%[1]s" ct state new udp dport 1-65535 drop; iifname "%[1]s" ct state new tcp dport 1-65535 drop; }
}`, outer))
}

// WriteEtc gives programs in the box their own /etc/NAME.
func (b *Box) WriteEtc(name, text string) error {
	return os.WriteFile(filepath.Join("/etc/netns", b.NS, name), []byte(text), 0o644)
}

// Interactive prepares a program that shares the terminal of this one.
func (b *Box) Interactive(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := b.Command(ctx, name, args...)
	c.SysProcAttr = nil // in this process group: the terminal's foreground
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	return c
}
