// Package config reads the one config.yaml of a box: settings, apps, and a section per applet.
//
// It does not know what the applets' sections mean (each applet decodes its own, strictly, with Section) and it does
// not write the file. It is the only importer of the yaml library. Rules: a key that nobody knows is an error with its
// line and, where one is near, the key that was meant; the file of 2017 loads unchanged; a File is immutable.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxFile bounds the file, in bytes; 2017 cut it silently at 32,000.
const MaxFile = 1 << 20

// Restart says when an app that ended by itself is started again.
type Restart string

// The restart policies.
const (
	Never     Restart = "never"
	OnFailure Restart = "on-failure" // exit status other than 0 and 2 (wrong usage, which waiting does not cure), or a signal
	Always    Restart = "always"
)

// App is one entry of apps. The first five keys are those of 2017.
type App struct {
	Name        string   `yaml:"-"`
	Daemon      bool     `yaml:"daemon"`       // no attaching
	Path        string   `yaml:"path"`         // a program, or a name that our own binary answers to
	DefaultArgs []string `yaml:"default_args"` // used only if the user gives none
	Desc        string   `yaml:"desc"`
	Help        string   `yaml:"help"`

	Autostart   bool              `yaml:"autostart"`
	Inproc      bool              `yaml:"inproc"` // run inside viscript: less memory, no isolation
	Env         map[string]string `yaml:"env"`
	Cwd         string            `yaml:"cwd"`
	StopTimeout Duration          `yaml:"stop_timeout"` // default DefaultStop
	Restart     Restart           `yaml:"restart"`      // default on-failure for daemons and with autostart, else never
	Delay       Duration          `yaml:"restart_delay"`
	MaxDelay    Duration          `yaml:"restart_max_delay"`
	Limit       int               `yaml:"restart_limit"` // give up after so many restarts in a row; 0: never
	LogBytes    int               `yaml:"log_bytes"`     // of RAM
	Log         Log               `yaml:"log"`
	DependsOn   []string          `yaml:"depends_on"` // apps that must serve first, or for a oneshot have ended well
	Ready       Ready             `yaml:"ready"`
	Health      Health            `yaml:"health"`
	Watchdog    Duration          `yaml:"watchdog"` // restarted when it is silent for so long: WATCHDOG=1 or "watchdog" of signal
	Oneshot     bool              `yaml:"oneshot"`  // runs to its end, which is no failure
	Schedule    string            `yaml:"schedule"` // when to start it, as cron; see Schedule
	Hooks       Hooks             `yaml:"hooks"`
	User        string            `yaml:"user"` // name or number, needs root
	Group       string            `yaml:"group"`
	TTY         bool              `yaml:"tty"`          // has a terminal of its own, for attach
	Caps        []string          `yaml:"caps"`         // all capabilities that it may have; not given: those of its user
	NoNewPrivs  bool              `yaml:"no_new_privs"` // set-user-id programs give it nothing
	Secrets     map[string]string `yaml:"secrets"`      // name → file, handed over in CREDENTIALS_DIRECTORY at each start
	Nice        int               `yaml:"nice"`
	Limits      Limits            `yaml:"limits"`
	Legacy      bool              `yaml:"legacy"` // joins by TCP at settings.signal_tcp, as in 2017, not by descriptor
}

// LocalSyslog is the word for the log of this system.
const LocalSyslog = "local"

// Log is the log of an app, beside log_bytes.
type Log struct {
	File      string `yaml:"file"`       // also into this file, in the state directory unless absolute: it wears out flash
	FileBytes Size   `yaml:"file_bytes"` // that it may take with its older pieces, default DefaultFileBytes
	Syslog    string `yaml:"syslog"`     // also to local, a socket's path, or host:port by UDP

	Rate  *float64 `yaml:"rate"`  // lines a second, default DefaultLogRate; 0: no limit. Those above are counted
	Level string   `yaml:"level"` // debug, info, warn or error: lines of less weight are not kept
}

// The defaults of an App.
const (
	DefaultLogRate   = 5000
	DefaultFileBytes = 1 << 20
	DefaultStop      = 10 * time.Second
	DefaultDelay     = time.Second
	DefaultMaxDelay  = time.Minute
	DefaultLogBytes  = 64 << 10
)

// Settings are the keys of 2017 plus our own.
type Settings struct {
	VerboseInput            bool   `yaml:"verboseInput"`            // 2017: understood, without effect
	VerifyParsingByPrinting bool   `yaml:"verifyParsingByPrinting"` // 2017: understood, without effect
	RunHeadless             bool   `yaml:"runHeadless"`
	SignalTCP               string `yaml:"signal_tcp"` // loopback host:port for programs that join as in 2017
	Web                     Web    `yaml:"web"`
	AuditFile               string `yaml:"audit_file"` // who changed what also into this file, in the state directory unless absolute
	Remote                  Remote `yaml:"remote"`
}

// DefaultWeb is where the web page is.
const DefaultWeb = "127.0.0.1:7668"

// Web is the web page, which is there unless viscript runs headless.
type Web struct {
	Listen  string `yaml:"listen"`  // host:port of loopback, or unix:PATH; default DefaultWeb
	Metrics bool   `yaml:"metrics"` // /metrics for Prometheus, without a login
}

// Remote says who may do what here over the mesh, by the keys of their nodes. Each scope includes those before it.
type Remote struct {
	Read    []string `yaml:"read"`    // look: ps, ru, logs, events; names of nodes and any too
	Operate []string `yaml:"operate"` // start, stop and attach to what is configured
	Admin   []string `yaml:"admin"`   // reload and upgrade too
}

// Empty reports whether nobody may do anything.
func (r Remote) Empty() bool { return len(r.Read)+len(r.Operate)+len(r.Admin) == 0 }

// File is a loaded config.yaml.
type File struct {
	Path     string // absolute; "" for the empty configuration
	Settings Settings
	Apps     map[string]*App

	sections map[string]*yaml.Node
	lines    map[string]int // of the top-level keys
}

// Empty is the configuration of a box without a file.
func Empty() *File { return &File{Apps: map[string]*App{}} }

// Load reads and checks path. A missing file is fs.ErrNotExist.
func Load(path string) (*File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	r, err := os.Open(abs)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", abs, err)
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", abs, ErrInvalid, MaxFile)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", abs, err)
	}
	f.Path = abs
	return f, nil
}

// Parse reads the text of a config.yaml. All that is wrong is in the one error, a line each.
func Parse(b []byte) (*File, error) {
	f := Empty()
	f.sections, f.lines = map[string]*yaml.Node{}, map[string]int{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return f, nil
	} else if err != nil {
		return nil, invalid("%v", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, invalid("more than one document in the file")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return f, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, invalid("line %d: expected keys such as apps: and settings:", root.Line)
	}
	for i := 0; i < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if _, twice := f.sections[k.Value]; twice {
			return nil, invalid("line %d: %q is there twice", k.Line, k.Value)
		}
		f.sections[k.Value], f.lines[k.Value] = v, k.Line
	}
	return f, errors.Join(f.Section("settings", &f.Settings), f.Settings.check(), f.parseApps())
}

func (s *Settings) check() error {
	if slices.Contains(s.Remote.Operate, "any") || slices.Contains(s.Remote.Admin, "any") {
		return invalid("settings.remote: any may read at most; name the keys that may operate or admin")
	}
	for _, k := range slices.Concat(s.Remote.Operate, s.Remote.Admin) {
		if !looksLikeKey(k) {
			return invalid("settings.remote: %q is no key, and who may operate or admin is named by key: a name could be certified for another key; "+
				"skywire node id prints it on that box", k)
		}
	}
	return nil
}

// looksLikeKey reports whether s has the form of a node's public key, 52 letters of base32 or 64 of hex. Who reads keys
// says whether it is one.
func looksLikeKey(s string) bool {
	letters := "abcdefghijklmnopqrstuvwxyz234567"
	if len(s) == 64 {
		letters = "0123456789abcdef"
	}
	return (len(s) == 52 || len(s) == 64) && strings.Trim(strings.ToLower(s), letters) == ""
}

func (f *File) parseApps() error {
	if err := f.Section("apps", &f.Apps); err != nil {
		return err
	}
	if f.Apps == nil {
		f.Apps = map[string]*App{}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(f.Apps)) {
		a := f.Apps[name]
		if a == nil {
			errs = append(errs, invalid("apps.%s is empty: it needs a path", name))
			continue
		}
		a.Name = name
		err := a.complete()
		if err == nil && a.Legacy && f.Settings.SignalTCP == "" {
			err = errors.New("legacy needs settings.signal_tcp, for example 127.0.0.1:7999")
		}
		if err != nil {
			errs = append(errs, invalid("line %d: apps.%s: %v", f.appLine(name), name, err))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, f.checkDependencies())
	}
	return errors.Join(errs...)
}

// complete checks an app and fills in its defaults.
func (a *App) complete() error {
	switch {
	case !goodName(a.Name):
		return errors.New("a name is made of letters, digits, '-', '_' and '.', and is not a number")
	case a.Path == "":
		return errors.New("path is missing")
	case a.Limit < 0 || a.LogBytes < 0 || a.StopTimeout < 0 || a.Delay < 0 || a.MaxDelay < 0:
		return errors.New("a limit is negative")
	case a.Log.Rate != nil && (*a.Log.Rate < 0 || *a.Log.Rate > 1e9):
		return errors.New("log.rate is no number of lines a second")
	case a.Log.FileBytes > 0 && a.Log.FileBytes < 4096:
		return errors.New("log.file_bytes: 4096 or more")
	case a.Log.Syslog != "" && a.Log.Syslog != LocalSyslog && a.Log.Syslog[0] != '/' && !strings.Contains(a.Log.Syslog, ":"):
		return fmt.Errorf("log.syslog: %q, expected local, the path of a socket, or host:port", a.Log.Syslog)
	case !slices.Contains([]string{"", "debug", "info", "warn", "error"}, a.Log.Level):
		return fmt.Errorf("log.level: %q, expected debug, info, warn or error", a.Log.Level)
	case a.LogBytes > 64<<20:
		return errors.New("log_bytes is above 64 MiB; it is RAM")
	case a.Inproc && len(a.Env) > 0:
		return errors.New("env has no effect with inproc: true, the environment belongs to viscript's process")
	case a.Inproc && a.Cwd != "":
		return errors.New("cwd has no effect with inproc: true, the working directory belongs to viscript's process")
	}
	if err := a.checkPrivileges(); err != nil {
		return err
	}
	for k := range a.Env {
		if k == "" || bytes.ContainsAny([]byte(k), "=\x00") {
			return fmt.Errorf("env: %q is no name", k)
		}
	}
	switch a.Restart {
	case "":
		a.Restart = Never
		if (a.Autostart || a.Daemon) && !a.Oneshot && a.Schedule == "" {
			a.Restart = OnFailure
		}
	case Never, OnFailure, Always:
	default:
		return fmt.Errorf("restart: %q, expected never, on-failure or always", a.Restart)
	}
	or := func(d *Duration, def time.Duration) {
		if *d == 0 {
			*d = Duration(def)
		}
	}
	or(&a.StopTimeout, DefaultStop)
	or(&a.Delay, DefaultDelay)
	or(&a.MaxDelay, DefaultMaxDelay)
	a.MaxDelay = max(a.MaxDelay, a.Delay)
	if a.LogBytes == 0 {
		a.LogBytes = DefaultLogBytes
	}
	if a.Log.FileBytes == 0 {
		a.Log.FileBytes = DefaultFileBytes
	}
	if a.Log.Rate == nil {
		rate := float64(DefaultLogRate)
		a.Log.Rate = &rate
	}
	return a.completeMore()
}

// goodName keeps names apart from ids (3, name#3) and safe in paths and shells.
func goodName(s string) bool {
	digits := true
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '-', r == '_', r == '.':
			digits = false
		default:
			return false
		}
	}
	return s != "" && !digits && s[0] != '-' && len(s) <= 64
}

func (f *File) appLine(name string) int {
	n := f.sections["apps"]
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i].Line
		}
	}
	return 0
}

// Section decodes the named top-level section into a pointer to a struct with yaml tags, on top of what it holds.
// A section that is not there changes nothing. Unknown keys are errors.
func (f *File) Section(name string, into any) error {
	n := f.sections[name]
	if n == nil {
		return nil
	}
	return strict(n, name, into)
}

// SameSection reports whether the named section says the same in both files; comments and layout don't count.
func (f *File) SameSection(o *File, name string) bool {
	a, b := f.sections[name], o.sections[name]
	if a == nil || b == nil {
		return a == b
	}
	var x, y any
	return a.Decode(&x) == nil && b.Decode(&y) == nil && reflect.DeepEqual(x, y)
}

// CheckSections reports top-level sections that are none of known, settings and apps.
func (f *File) CheckSections(known []string) error {
	known = append([]string{"settings", "apps"}, known...)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(f.sections)) {
		if !slices.Contains(known, name) {
			errs = append(errs, invalid("line %d: unknown section %q%s", f.lines[name], name, Meant(name, known)))
		}
	}
	return errors.Join(errs...)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Duration is a time.Duration that yaml writes as 10s, or as a number of seconds.
type Duration time.Duration

// UnmarshalYAML decodes 1m30s or a plain number of seconds.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	var secs float64
	if n.Decode(&secs) == nil {
		if secs < 0 || secs > 1e9 {
			return fmt.Errorf("line %d: %q is no duration", n.Line, n.Value)
		}
		*d = Duration(secs * float64(time.Second))
		return nil
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration such as 10s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}
