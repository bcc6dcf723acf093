package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	patience = 30 * time.Second
	idle     = 30 * time.Second // after which a program counts as idle
	look     = 10 * time.Millisecond
)

// apps is a config.yaml of everything, %t: in one process.
const apps = `settings: {runHeadless: true}
apps:
  node: {path: skywire-node, default_args: [run, --no-lan, --no-punch], inproc: %[1]t, autostart: true, ready: {notify: true}}
  manager: {path: skywire-manager, default_args: [run], inproc: %[1]t, autostart: %[2]t, depends_on: [node]}
  vpn: {path: skywire-vpn, default_args: [up, --dns, "off"], inproc: %[1]t, autostart: true, depends_on: [node]}
  socks: {path: skywire-socks, default_args: [server, --allow, "@all"], inproc: %[1]t, autostart: true, depends_on: [node]}
  messenger: {path: skywire-messenger, default_args: [run], inproc: %[1]t, autostart: true, depends_on: [node]}
`

// measureHere runs all daemons on this machine, in a network of their own: as processes, then a client's box as one.
func measureHere(program string) (m machine, err error) {
	m.Facts.Memory = map[string]json.RawMessage{}
	m.Facts.Daemons, m.Facts.AllInOne = map[string]any{}, map[string]any{}
	for _, one := range []bool{false, true} {
		if err := measureBox(program, one, &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

// box is a viscript in a network of its own.
type box struct {
	program, dir string
	pid          int
}

func measureBox(program string, one bool, m *machine) error {
	dir, err := os.MkdirTemp("", "skywire-table")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &box{program: program, dir: dir}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), fmt.Appendf(nil, apps, one, !one), 0o600); err != nil {
		return err
	}
	if out, err := b.command("node", "id").CombinedOutput(); err != nil {
		return fmt.Errorf("node id: %w %s", err, out)
	}
	var log bytes.Buffer
	c := b.command("viscript", "run")
	c.Args = append([]string{"unshare", "-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, c.Args...)
	if c.Path, err = exec.LookPath("unshare"); err != nil {
		return err
	}
	c.Stdout, c.Stderr = &log, &log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := c.Start(); err != nil {
		return err
	}
	b.pid = c.Process.Pid // unshare and sh are replaced by the program
	defer func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	}()
	if err := b.measure(one, start, m); err != nil {
		return fmt.Errorf("%w: %s", err, log.String())
	}
	return nil
}

func (b *box) command(args ...string) *exec.Cmd {
	c := exec.Command(b.program, args...)
	c.Env = append(os.Environ(), "SKYWIRE_STATE="+filepath.Join(b.dir, "state"), "SKYWIRE_RUN="+filepath.Join(b.dir, "run"),
		"SKYWIRE_CONFIG="+filepath.Join(b.dir, "config.yaml"), "HOME="+b.dir)
	return c
}

func (b *box) measure(one bool, start time.Time, m *machine) error {
	node, all := time.Duration(0), time.Duration(0)
	for all == 0 {
		if time.Since(start) > patience {
			out, _ := b.command("viscript", "ps").CombinedOutput()
			return fmt.Errorf("not all is ready after %s:\n%s", patience, out)
		}
		states, err := b.states()
		switch {
		case err != nil:
		case node == 0 && states["node"].State == "ready":
			node = time.Since(start)
			fallthrough
		default:
			if settled(states) {
				all = time.Since(start)
			}
		}
		<-time.After(look)
	}
	<-time.After(idle)
	var err error
	if one {
		m.Facts.AllInOne["apps_ready_ms"] = float64(all.Milliseconds())
		m.Facts.Memory["all-in-one"], err = memory(b.pid)
		return err
	}
	m.Facts.Daemons["node_ready_ms"] = float64(node.Milliseconds())
	states, err := b.states()
	if err != nil {
		return err
	}
	for name, s := range states {
		if m.Facts.Memory[name], err = memory(s.PID); err != nil {
			return err
		}
	}
	m.Facts.Memory["viscript"], err = memory(b.pid)
	return err
}

type app struct {
	Name, State string
	PID         int
}

func (b *box) states() (map[string]app, error) {
	out, err := b.command("viscript", "ps", "--json").Output()
	if err != nil {
		return nil, err
	}
	var list []app
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	states := map[string]app{}
	for _, a := range list {
		states[a.Name] = a
	}
	return states, nil
}

func settled(states map[string]app) bool {
	for _, s := range states {
		if s.State != "ready" && s.State != "running" {
			return false
		}
	}
	return len(states) > 0
}

// memory is what /proc says of a process.
func memory(pid int) (json.RawMessage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return nil, err
	}
	var u use
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Rss:":
			u.RSS = n
		case "Pss:":
			u.PSS = n
		case "Private_Dirty:":
			u.Dirty = n
		}
	}
	return json.Marshal(u)
}
