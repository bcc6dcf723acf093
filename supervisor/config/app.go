package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Probe looks whether an app serves. One of its kinds is given.
type Probe struct {
	TCP  string   `yaml:"tcp"`  // host:port that takes connections
	HTTP string   `yaml:"http"` // http://host:port/path that answers with a status below 400
	Exec []string `yaml:"exec"` // program and arguments that end with status 0
}

// Ready says how an app tells, or is seen, to serve. Without any of it an app serves as soon as it runs; one that speaks
// signal or sd_notify may tell without being configured.
type Ready struct {
	Probe  `yaml:",inline"`
	Notify bool   `yaml:"notify"` // READY=1 of sd_notify
	Signal bool   `yaml:"signal"` // "ready" of signal
	FD     int    `yaml:"fd"`     // a newline on this descriptor, as for s6
	Log    string `yaml:"log"`    // a line that matches this expression

	Timeout Duration `yaml:"timeout"` // default DefaultReady; after it the app has failed
}

// Wanted reports whether anything is awaited.
func (r *Ready) Wanted() bool { return r.kinds() > 0 }

func (r *Ready) kinds() int {
	n := r.Probe.kinds()
	for _, on := range []bool{r.Notify, r.Signal, r.FD != 0, r.Log != ""} {
		if on {
			n++
		}
	}
	return n
}

func (p *Probe) kinds() int {
	n := 0
	for _, on := range []bool{p.TCP != "", p.HTTP != "", len(p.Exec) > 0} {
		if on {
			n++
		}
	}
	return n
}

// The actions of a health check that fails.
const (
	ActionRestart = "restart" // default
	ActionStop    = "stop"
	ActionLog     = "log"
)

// Health looks again and again whether an app that serves still does.
type Health struct {
	Probe    `yaml:",inline"`
	Ping     bool     `yaml:"ping"`     // ping of signal
	Every    Duration `yaml:"every"`    // default DefaultEvery
	Timeout  Duration `yaml:"timeout"`  // of one look, default DefaultTimeout
	Failures int      `yaml:"failures"` // in a row until the action, default 3
	Action   string   `yaml:"action"`
}

// Wanted reports whether anything is looked at.
func (h *Health) Wanted() bool { return h.Ping || h.Probe.kinds() > 0 }

// Hooks are programs that run when something happens, with APP, APP_ID and REASON in their environment, no longer than
// HookTimeout.
type Hooks struct {
	Restart []string `yaml:"restart"` // before the app is started again
	Ready   []string `yaml:"ready"`
	Failed  []string `yaml:"failed"` // given up
}

// Limits are what the kernel holds an app to; 0 is no limit.
type Limits struct {
	Memory Size    `yaml:"memory"` // of the whole tree, by cgroup
	PIDs   int     `yaml:"pids"`   // of the whole tree, by cgroup
	CPU    float64 `yaml:"cpu"`    // percent of one CPU, by cgroup
	Files  int     `yaml:"files"`  // open descriptors of a process
}

// The defaults of what looks at an app.
const (
	DefaultReady   = time.Minute
	DefaultEvery   = 30 * time.Second
	DefaultTimeout = 5 * time.Second
	HookTimeout    = 30 * time.Second
)

// maxReadyFD bounds the number that a readiness descriptor may have.
const maxReadyFD = 63

func (p *Probe) check(name string) error {
	if p.TCP != "" {
		if _, _, err := net.SplitHostPort(p.TCP); err != nil {
			return fmt.Errorf("%s.tcp: %q is no host:port", name, p.TCP)
		}
	}
	if p.HTTP != "" {
		u, err := url.Parse(p.HTTP)
		if err != nil || u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("%s.http: %q is no http:// address", name, p.HTTP)
		}
	}
	return nil
}

// complete checks what looks at an app and fills in the defaults.
func (r *Ready) complete() error {
	if r.kinds() > 1 {
		return errors.New("ready: one of notify, signal, fd, tcp, http, exec and log")
	}
	if r.FD != 0 && (r.FD < 3 || r.FD > maxReadyFD) {
		return fmt.Errorf("ready.fd: 3 to %d", maxReadyFD)
	}
	if _, err := regexp.Compile(r.Log); err != nil {
		return fmt.Errorf("ready.log: %w", err)
	}
	if r.Timeout == 0 {
		r.Timeout = Duration(DefaultReady)
	}
	return r.Probe.check("ready")
}

func (h *Health) complete() error {
	n := h.Probe.kinds()
	if h.Ping {
		n++
	}
	if n > 1 {
		return errors.New("health: one of ping, tcp, http and exec")
	}
	if h.Every == 0 {
		h.Every = Duration(DefaultEvery)
	}
	if h.Timeout == 0 {
		h.Timeout = Duration(DefaultTimeout)
	}
	if h.Failures == 0 {
		h.Failures = 3
	}
	if h.Action == "" {
		h.Action = ActionRestart
	}
	if !slices.Contains([]string{ActionRestart, ActionStop, ActionLog}, h.Action) {
		return fmt.Errorf("health.action: %q, expected restart, stop or log", h.Action)
	}
	if h.Failures < 0 || h.Every < 0 || h.Timeout < 0 {
		return errors.New("health: a number is negative")
	}
	return h.Probe.check("health")
}

// completeMore checks what an app may have beside its program, and fills in the defaults.
func (a *App) completeMore() error {
	outside := a.Ready.FD != 0 || a.User != "" || a.Group != "" || a.Nice != 0 || a.Limits != (Limits{})
	switch {
	case a.Inproc && outside:
		return errors.New("user, group, nice, limits and ready.fd have no effect with inproc: true")
	case a.Nice < -20 || a.Nice > 19:
		return errors.New("nice: -20 to 19")
	case a.Limits.PIDs < 0 || a.Limits.Files < 0 || a.Limits.CPU < 0:
		return errors.New("limits: a number is negative")
	case a.Watchdog < 0:
		return errors.New("watchdog is negative")
	case a.Oneshot && a.Restart == Always:
		return errors.New("oneshot and restart: always contradict each other; for again and again use schedule")
	}
	if a.Schedule != "" {
		if _, err := ParseSchedule(a.Schedule); err != nil {
			return fmt.Errorf("schedule: %w", err)
		}
	}
	if err := a.Ready.complete(); err != nil {
		return err
	}
	return a.Health.complete()
}

// checkDependencies finds names that are no app, and apps that wait for each other.
func (f *File) checkDependencies() error {
	var errs []error
	names := make([]string, 0, len(f.Apps))
	for name := range f.Apps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, d := range f.Apps[name].DependsOn {
			if f.Apps[d] == nil {
				errs = append(errs, invalid("line %d: apps.%s: depends_on: no app %q%s", f.appLine(name), name, d, Meant(d, names)))
			}
		}
		if ring := f.waitsFor(name, name, nil); ring != nil {
			errs = append(errs, invalid("line %d: apps.%s: depends_on goes round: %s", f.appLine(name), name, strings.Join(ring, " → ")))
			break
		}
	}
	return errors.Join(errs...)
}

// waitsFor returns a chain of dependencies from name to target.
func (f *File) waitsFor(name, target string, way []string) []string {
	way = append(way, name)
	if a := f.Apps[name]; a != nil {
		for _, d := range a.DependsOn {
			if d == target {
				return append(way, d)
			}
			if slices.Contains(way, d) {
				continue
			}
			if ring := f.waitsFor(d, target, way); ring != nil {
				return ring
			}
		}
	}
	return nil
}

// Size is a number of bytes that yaml writes as 64MiB, 64M (the same) or as a number.
type Size uint64

// UnmarshalYAML decodes 64MiB, 64M or a plain number of bytes.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(n.Value)), "B"), "I")
	shift := 0
	if i := strings.IndexByte("KMGT", lastByte(text)); i >= 0 {
		shift = 10 * (i + 1)
		text = strings.TrimSpace(text[:len(text)-1])
	}
	v, err := strconv.ParseUint(text, 10, 63)
	if err != nil || v > 1<<50>>shift {
		return fmt.Errorf("line %d: %q is no size such as 64MiB", n.Line, n.Value)
	}
	*s = Size(v << shift)
	return nil
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}
