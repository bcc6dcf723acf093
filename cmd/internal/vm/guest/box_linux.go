package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// box is a network namespace, held open by a program that does nothing.
type box struct {
	name    string
	dir     string
	holder  int // its pid
	key     string
	address string
	running map[string]int // what was measured as started → pid
}

func newBox(ctx context.Context, name string) (*box, error) {
	b := &box{name: name, dir: filepath.Join("/run", name), running: map[string]int{}}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	hold := exec.CommandContext(ctx, busybox, "unshare", "-n", busybox, "sh", "-c", "echo; exec "+busybox+" sleep 10000")
	out, err := hold.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := hold.Start(); err != nil {
		return nil, err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is in its namespace now
		return nil, fmt.Errorf("namespace of %s: %w", name, err)
	}
	b.holder = hold.Process.Pid
	_, err = b.run(ctx, busybox, "sh", "-c", "busybox ip link set lo up; for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done")
	return b, err
}

// command prepares a program in the box.
func (b *box) command(ctx context.Context, words ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, busybox, append([]string{"nsenter", "-t", strconv.Itoa(b.holder), "-n", "-F"}, words...)...)
	c.Env = []string{
		"PATH=/bin", "HOME=" + b.dir, "NO_COLOR=1",
		"SKYWIRE_STATE=" + b.dir + "/state", "SKYWIRE_RUN=" + b.dir + "/run", "SKYWIRE_CONFIG=" + b.config(),
	}
	return c
}

func (b *box) config() string { return filepath.Join(b.dir, "config.yaml") }

func (b *box) run(ctx context.Context, words ...string) (string, error) {
	var stderr strings.Builder
	c := b.command(ctx, words...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %s: %w: %s", b.name, strings.Join(words, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func (b *box) skywire(ctx context.Context, words ...string) (string, error) {
	if _, err := os.Stat(b.config()); err != nil {
		if err := os.WriteFile(b.config(), nil, 0o600); err != nil {
			return "", err
		}
	}
	out, err := b.run(ctx, append([]string{skywire}, words...)...)
	return strings.TrimSpace(out), err
}

func (b *box) skywireJSON(ctx context.Context, into any, words ...string) error {
	out, err := b.skywire(ctx, append(words, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// start prepares a daemon, whose output goes to a file.
func (b *box) start(ctx context.Context, name string, words ...string) (*exec.Cmd, error) {
	c := b.command(ctx, append([]string{skywire}, words...)...)
	f, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	c.Stdout, c.Stderr = f, f
	return c, nil
}

func (b *box) serve(ctx context.Context, addr string) error {
	return b.command(ctx, self, "serve", addr, strconv.Itoa(size)).Start()
}

func (b *box) fetch(ctx context.Context, args ...string) (t transfer, err error) {
	out, err := b.run(ctx, append([]string{self, "fetch"}, args...)...)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal([]byte(out), &t)
}

type end struct {
	box  *box
	addr string
}

// wire joins two boxes. Busybox gives neither end a name, so each is the only new device of its box at the time.
func wire(ctx context.Context, ends ...end) error {
	made, err := exec.CommandContext(ctx, busybox, "sh", "-c", "busybox ip link add wire type veth && busybox ls /sys/class/net").CombinedOutput()
	if err != nil {
		return fmt.Errorf("wire: %w: %s", err, made)
	}
	peer := ""
	for _, name := range strings.Fields(string(made)) {
		if strings.HasPrefix(name, "veth") {
			peer = name
		}
	}
	if peer == "" || len(ends) != 2 {
		return fmt.Errorf("wire: no other end in %q", made)
	}
	for i, dev := range []string{"wire", peer} {
		b := ends[i].box
		name := "to" + ends[1-i].box.name
		_, err := exec.CommandContext(ctx, busybox, "ip", "link", "set", dev, "netns", strconv.Itoa(b.holder)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("wire: move %s: %w", dev, err)
		}
		_, err = b.run(ctx, busybox, "sh", "-c", fmt.Sprintf("busybox ip link set %s name %s && busybox ip addr add %s dev %[2]s && busybox ip link set %[2]s up", dev, name, ends[i].addr))
		if err != nil {
			return err
		}
	}
	return nil
}

// until tries again for as long as an emulated processor may need.
func until(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// sum is that of so many bytes of source.
func sum(n int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, source(n)) // neither of the two fails
	return hex.EncodeToString(h.Sum(nil))
}
