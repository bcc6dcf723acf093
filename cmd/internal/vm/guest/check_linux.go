package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	size     = 1 << 20 // bytes of a transfer
	beyond   = "203.0.113.2:8080"
	private  = "10.77.0.2" // of outside, too: the rules of socks know no public address among those for documents
	linkPort = "7667"
)

// world is three computers in one machine: far and near run the daemons, outside is a server that only far reaches.
//
//	near 10.1.0.2 ------ 10.1.0.1 far 198.51.100.1 ------ 198.51.100.2 outside, 203.0.113.2
type world struct {
	ctx                context.Context
	far, near, outside *box
}

// check runs the steps in order, says how each went, and switches the machine off.
func check(ctx context.Context) {
	defer off()
	w := &world{ctx: ctx}
	for _, s := range []struct {
		name string
		do   func() (map[string]any, error)
	}{
		{"machine", w.machine},
		{"version", w.version},
		{"wire", w.wire},
		{"daemons", w.daemons},
		{"all-in-one", w.allInOne},
		{"link", w.link},
		{"tun", w.tun},
		{"transfer", w.transfer},
		{"exit", w.exit},
		{"socks", w.socks},
		{"refused", w.refused},
		{"memory", w.memory},
		{"supervisor", w.supervisor},
	} {
		start := time.Now()
		values, err := s.do()
		if values == nil {
			values = map[string]any{}
		}
		values["took_ms"] = time.Since(start).Milliseconds()
		if err != nil {
			values["error"] = err.Error()
		}
		say(s.name, values)
		if err != nil {
			w.logs()
			return
		}
	}
	tell("done") // vm.Done
}

// logs says the ends of what the daemons wrote.
func (w *world) logs() {
	files, _ := filepath.Glob("/run/*/*.log")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		say("log", map[string]any{"file": f, "end": string(b[max(0, len(b)-2000):])})
	}
}

func (w *world) machine() (map[string]any, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, err
	}
	first, err := os.Readlink("/proc/1/exe")
	if err != nil {
		return nil, err
	}
	up, _, _ := strings.Cut(string(uptime), " ")
	return map[string]any{
		"kernel": strings.TrimSpace(string(kernel)), "uptime_s": up, "goarch": runtime.GOARCH, "page_bytes": os.Getpagesize(), "init": first,
	}, nil
}

func (w *world) version() (map[string]any, error) {
	var best time.Duration
	var out []byte
	for range 3 {
		start := time.Now()
		var err error
		if out, err = exec.CommandContext(w.ctx, skywire, "--version").Output(); err != nil {
			return nil, err
		}
		if took := time.Since(start); best == 0 || took < best {
			best = took
		}
	}
	return map[string]any{"version": strings.TrimSpace(string(out)), "best_ms": best.Milliseconds()}, nil
}

func (w *world) wire() (map[string]any, error) {
	var err error
	for name, at := range map[string]**box{"far": &w.far, "near": &w.near, "outside": &w.outside} {
		if *at, err = newBox(w.ctx, name); err != nil {
			return nil, err
		}
	}
	err = errors.Join(
		wire(w.ctx, end{w.near, "10.1.0.2/24"}, end{w.far, "10.1.0.1/24"}),
		wire(w.ctx, end{w.far, "198.51.100.1/24"}, end{w.outside, "198.51.100.2/24"}),
	)
	if err == nil {
		_, err = w.outside.run(w.ctx, busybox, "sh", "-c", "busybox ip addr add 203.0.113.2/32 dev lo && busybox ip addr add "+private+"/32 dev lo")
	}
	if err == nil {
		_, err = w.far.run(w.ctx, busybox, "ip", "route", "add", "default", "via", "198.51.100.2")
	}
	if err != nil {
		return nil, err
	}
	for _, b := range []*box{w.far, w.near} {
		if b.key, err = b.skywire(w.ctx, "node", "id"); err != nil {
			return nil, err
		}
		var id struct{ Address string }
		if err := b.skywireJSON(w.ctx, &id, "node", "id"); err != nil {
			return nil, err
		}
		b.address = id.Address
	}
	return map[string]any{"far": w.far.key, "near": w.near.key}, nil
}

// daemons starts one process for each daemon, as procd and systemd do, and says how long each took and what it weighs.
func (w *world) daemons() (map[string]any, error) {
	values := map[string]any{}
	for _, d := range []struct {
		name string
		args []string
	}{
		{"node", []string{"node", "run", "--name", "far", "--open", "--no-lan", "--listen", "udp://0.0.0.0:" + linkPort}},
		{"manager", []string{"manager", "run"}},
		{"vpn", []string{"vpn", "server", "--exit", "--allow", "any", "--dns", "off"}},
		{"socks", []string{"socks", "server", "--allow", "any", "--policy", "allow " + private}},
	} {
		c, err := w.far.start(w.ctx, d.name, d.args...)
		if err != nil {
			return values, err
		}
		took, err := ready(w.ctx, c, "far-"+d.name)
		if err != nil {
			return values, err
		}
		w.far.running[d.name] = c.Process.Pid
		values[d.name+"_ready_ms"] = took.Milliseconds()
	}
	return values, nil
}

// nearConfig is the client's box: one process that holds all.
const nearConfig = `settings: {runHeadless: true}
node: {name: near, open: true, listen: ["udp://0.0.0.0:7667"], peers: ["%s@udp://10.1.0.1:7667"]}
apps:
  node: {path: skywire-node, default_args: [run, --no-lan], inproc: true, autostart: true, ready: {notify: true}}
  vpn: {path: skywire-vpn, default_args: [client, --server, %[1]s, --exit, --dns, "off"], inproc: true, autostart: true, depends_on: [node]}
  socks: {path: skywire-socks, default_args: [client, --server, %[1]s], inproc: true, autostart: true, depends_on: [node]}
`

func (w *world) allInOne() (map[string]any, error) {
	if err := os.WriteFile(w.near.config(), fmt.Appendf(nil, nearConfig, w.far.key), 0o600); err != nil {
		return nil, err
	}
	c, err := w.near.start(w.ctx, "viscript", "viscript", "run", "--headless")
	if err != nil {
		return nil, err
	}
	start := time.Now()
	took, err := ready(w.ctx, c, "near-viscript")
	if err != nil {
		return nil, err
	}
	w.near.running["all-in-one"] = c.Process.Pid
	err = until(w.ctx, "all apps of near are ready", func() error {
		var apps []struct{ Name, State string }
		if err := w.near.skywireJSON(w.ctx, &apps, "viscript", "ps"); err != nil {
			return err
		}
		up := 0
		for _, a := range apps {
			if a.State == "ready" {
				up++
			}
		}
		if up != 3 {
			return fmt.Errorf("apps: %+v", apps)
		}
		return nil
	})
	return map[string]any{"viscript_ready_ms": took.Milliseconds(), "apps_ready_ms": time.Since(start).Milliseconds()}, err
}

func (w *world) link() (map[string]any, error) {
	var p struct {
		Received int     `json:"received"`
		AvgMS    float64 `json:"avg_ms"`
	}
	err := until(w.ctx, "near pings far", func() error {
		return w.near.skywireJSON(w.ctx, &p, "node", "ping", "-c", "3", "-i", "0.1", w.far.key)
	})
	return map[string]any{"ping_avg_ms": p.AvgMS}, err
}

// tun sends the kernel's own pings from device to device, both ways, small and as big as the MTU lets.
func (w *world) tun() (map[string]any, error) {
	values := map[string]any{}
	for _, b := range [][2]*box{{w.near, w.far}, {w.far, w.near}} {
		for _, bytes := range []string{"56", "1300"} {
			err := until(w.ctx, b[0].name+" pings "+b[1].name+" over the device", func() error {
				out, err := b[0].run(w.ctx, busybox, "ping6", "-c", "2", "-i", "0.2", "-s", bytes, "-W", "5", b[1].address)
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				values[b[0].name+"_"+bytes] = lastLine(out)
				return nil
			})
			if err != nil {
				return values, err
			}
		}
	}
	return values, nil
}

// transfer carries data over the devices, towards the exit and back, and compares sums.
func (w *world) transfer() (map[string]any, error) {
	values := map[string]any{}
	for _, b := range [][2]*box{{w.near, w.far}, {w.far, w.near}} {
		if err := b[1].serve(w.ctx, ":8080"); err != nil {
			return values, err
		}
		if err := w.compare(values, b[1].name+"_to_"+b[0].name, b[0], "["+b[1].address+"]:8080"); err != nil {
			return values, err
		}
	}
	return values, nil
}

// exit reaches a server that near has no route to but through far: TUN, rule by mark, NAT by nftables.
func (w *world) exit() (map[string]any, error) {
	if err := w.outside.serve(w.ctx, ":8080"); err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := w.compare(values, "exit", w.near, beyond); err != nil {
		return values, err
	}
	rules, err := w.near.run(w.ctx, busybox, "ip", "rule")
	values["rules"] = rules
	if err == nil && !strings.Contains(rules, "fwmark") {
		err = errors.New("no rule by mark")
	}
	return values, err
}

func (w *world) socks() (map[string]any, error) {
	values := map[string]any{}
	return values, w.compare(values, "socks", w.near, private+":8080", "127.0.0.1:1080")
}

// refused asks the proxy for a closed port: the answer is the kernel's number for it, which MIPS counts differently.
func (w *world) refused() (map[string]any, error) {
	t, err := w.near.fetch(w.ctx, private+":9", "127.0.0.1:1080")
	if want := "the proxy refused with 5"; err == nil && t.Error != want {
		err = fmt.Errorf("%q, want %q", t.Error, want)
	}
	return map[string]any{"answer": t.Error}, err
}

// compare has a box fetch what serve sends and looks whether it is the same.
func (w *world) compare(values map[string]any, name string, b *box, args ...string) error {
	want := sum(size)
	var t transfer
	err := until(w.ctx, name, func() (err error) {
		if t, err = b.fetch(w.ctx, args...); err == nil && t.Error != "" {
			err = errors.New(t.Error)
		}
		return err
	})
	if err != nil {
		return err
	}
	if t.Bytes != size || t.SHA != want {
		return fmt.Errorf("%s: %d bytes with sum %s, want %d with %s", name, t.Bytes, t.SHA, size, want)
	}
	values[name+"_mbit"] = float64(int(float64(t.Bytes)*8/t.MS/10)) / 100
	return nil
}

func (w *world) memory() (map[string]any, error) {
	values := map[string]any{}
	add := func(name string, pid int) error {
		rss, pss, private, err := memory(pid)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		values[name] = map[string]any{"rss_kb": rss, "pss_kb": pss, "private_dirty_kb": private}
		return nil
	}
	err := add("viscript", 1)
	for _, b := range []*box{w.far, w.near} {
		for name, pid := range b.running {
			err = errors.Join(err, add(name, pid))
		}
	}
	return values, err
}

// supervisor asks process 1 about this very program.
func (w *world) supervisor() (map[string]any, error) {
	out, err := exec.CommandContext(w.ctx, skywire, "viscript", "ps", "--json").Output()
	if err != nil {
		return nil, err
	}
	var apps []struct {
		Name, State string
		PID         int
	}
	if err := json.Unmarshal(out, &apps); err != nil {
		return nil, err
	}
	if len(apps) != 1 || apps[0].PID != os.Getpid() {
		return nil, fmt.Errorf("viscript ps: %s; this is %d", out, os.Getpid())
	}
	return map[string]any{"app": apps[0].Name, "state": apps[0].State}, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
