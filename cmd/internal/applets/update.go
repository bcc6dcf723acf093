//go:build web || !(mips || mipsle || mini)

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/packaging/update"
	"skywire/signal"
)

// defaultGate is how long a new version has to bring back what ran: a node finds its peers in seconds, a slow router starts in ten.
const defaultGate = 60 * time.Second

func updateApplet() applet.Applet {
	return applet.Command{
		Name:    updateName,
		Summary: "replace this program by a newer, signed release, and go back if that is no good",
		About: "Off until config.yaml, section update, or flags name a key that signs releases (keys) and where they lie (from):\n" +
			"a folder, http(s)://…/, or mesh:NODE for a box that runs: skywire update serve DIR\n" +
			"Who releases:  update keygen release.key;  update sign DIR --key-file release.key --version V",
		Verbs: append([]applet.Verb{
			{Name: "check", Args: "[--from SOURCE] [--key KEY]…", Summary: "what there is, and whether this box should take it", Run: updateCheck},
			{Name: "apply", Args: "[--from SOURCE] [--key KEY]… [--gate D] [--restart HOW] [--force]", Summary: "take it, watch it, go back if it is not well", Run: updateApply},
			{Name: "status", Summary: "what runs, what is kept, what happened last", Run: updateStatus},
			{Name: "rollback", Args: "[--restart HOW]", Summary: "put the program of before back", Run: updateRollback},
			{Name: "resume", Args: "[--gate D]", Summary: "end a change that was cut off; for the start of the box", Run: updateResume},
		}, releaseVerbs()...),
	}.Applet()
}

func (c *updateConfig) sourceFlags(f *applet.Flags) {
	f.StringVar(&c.From, "from", "", "`SOURCE` of releases: a folder, http(s)://…/, or mesh:NODE (config: update.from)")
	f.ListVar(&c.Keys, "key", "`KEY` whose releases are trusted, repeatable (config: update.keys)")
}

func (c *updateConfig) restartFlag(f *applet.Flags) {
	f.StringVar(&c.Restart, "restart", "", "`HOW` to restart what runs: auto, viscript, systemd, init, or none (default auto)")
}

func (c *updateConfig) gateFlag(f *applet.Flags) {
	f.DurationVar(&c.Gate, "gate", 0, "how long the new version has to be well in (default 1m0s)")
}

// read overlays the file and checks the words.
func (c *updateConfig) read(f *applet.Flags, least, most int) ([]string, error) {
	words, err := f.Parse(least, most)
	if err == nil {
		err = f.Overlay(openSections, updateName, c)
	}
	if c.Gate == 0 {
		c.Gate = defaultGate
	}
	if err == nil && (c.Gate < 2*time.Second || c.Gate > time.Hour) {
		err = applet.Usagef("--gate %v: from 2s to 1h", c.Gate)
	}
	if err == nil && !restartWord(c.Restart) {
		err = applet.Usagef("--restart %s: auto, viscript, systemd, init or none", c.Restart)
	}
	return words, err
}

// trusted are the release keys.
func (c *updateConfig) trusted() (keys []key.Public, err error) {
	for _, word := range c.Keys {
		k, err := key.Parse(word)
		if err != nil {
			return nil, applet.Usagef("release key %q: %v", word, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, applet.WithCode(applet.Refused, fmt.Errorf("%w; put the public key of who releases into update.keys of config.yaml, or say --key KEY", update.ErrNoKeys))
	}
	return keys, nil
}

// source opens where releases lie; done lets go of it.
func (c *updateConfig) source(ctx context.Context, f *applet.Flags) (from update.Source, done func(), err error) {
	done = func() {}
	switch {
	case c.From == "":
		return nil, done, applet.Usagef("where from? say --from SOURCE, or update.from in config.yaml")
	case strings.HasPrefix(c.From, "http://"), strings.HasPrefix(c.From, "https://"):
		web, err := update.NewWeb(c.From)
		if err != nil {
			return nil, done, applet.Usagef("--from: %v", err)
		}
		return web, done, nil
	case strings.HasPrefix(c.From, "mesh:"):
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return nil, done, err
		}
		done = func() { _ = node.Close() }
		k, err := node.Resolve(ctx, strings.TrimPrefix(c.From, "mesh:"))
		if err != nil {
			return nil, done, fmt.Errorf("--from %s: %w", c.From, err)
		}
		return update.Peer{Node: node, Key: k}, done, nil
	}
	dir := strings.TrimSuffix(c.From, update.ManifestName)
	if i, err := os.Stat(dir); err != nil {
		return nil, done, fmt.Errorf("--from %s: %w", c.From, err)
	} else if !i.IsDir() {
		return nil, done, applet.Usagef("--from %s: name the folder of the release", c.From)
	}
	return update.Folder(dir), done, nil
}

// releasePlatform is what the manifest calls this build.
func releasePlatform() string {
	name := runtime.GOOS + "-" + runtime.GOARCH
	variant, mini := "", ""
	if i, ok := debug.ReadBuildInfo(); ok {
		for _, s := range i.Settings {
			switch s.Key {
			case "GOARM", "GOMIPS":
				word, _, _ := strings.Cut(s.Value, ",")
				variant = "-" + word
			case "-tags":
				if strings.Contains(","+s.Value+",", ",mini,") {
					mini = "-mini"
				}
			}
		}
	}
	return name + variant + mini
}

// updateReport is update check --json.
type updateReport struct {
	Current    string    `json:"current"`
	Platform   string    `json:"platform"`
	Version    string    `json:"version"`
	MinVersion string    `json:"min_version,omitempty"`
	Time       time.Time `json:"time"`
	SignedBy   string    `json:"signed_by"`
	File       string    `json:"file"`
	Size       int64     `json:"size_bytes"`
	SHA256     string    `json:"sha256"`
	Suits      bool      `json:"suits"` // apply would take it
	Why        string    `json:"why,omitempty"`
}

// offer is a release and what this box thinks of it.
type offer struct {
	manifest update.Manifest
	file     update.File
	by       key.Public
	reject   error // why not; nil: take it
}

func (c *updateConfig) look(ctx context.Context, f *applet.Flags, from update.Source) (r offer, err error) {
	keys, err := c.trusted()
	if err != nil {
		return r, err
	}
	if r.manifest, r.by, err = update.Release(ctx, from, keys); err != nil {
		if errors.Is(err, update.ErrSignature) || errors.Is(err, update.ErrManifest) {
			err = applet.WithCode(applet.Refused, err)
		}
		return r, fmt.Errorf("%s: %w", c.From, err)
	}
	if r.file, err = r.manifest.For(releasePlatform()); err != nil {
		return r, applet.WithCode(applet.NotFound, err)
	}
	r.reject = r.manifest.Suits(applet.Version().Version)
	return r, nil
}

func updateCheck(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update check", "[--from SOURCE] [--key KEY]…",
		"Fetches the manifest of the newest release, checks its signature, and says whether it suits this box. It changes nothing.")
	var c updateConfig
	c.sourceFlags(f)
	if _, err := c.read(f, 0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		from, done, err := c.source(ctx, f)
		defer done()
		if err != nil {
			return err
		}
		r, err := c.look(ctx, f, from)
		if err != nil {
			return err
		}
		report := updateReport{
			Current: applet.Version().Version, Platform: r.file.Platform, Version: r.manifest.Version, MinVersion: r.manifest.MinVersion,
			Time: r.manifest.Time, SignedBy: r.by.String(), File: r.file.Name, Size: r.file.Size, SHA256: r.file.SHA256, Suits: r.reject == nil,
		}
		if r.reject != nil {
			report.Why = r.reject.Error()
		}
		if f.JSON {
			return e.PrintJSON(report)
		}
		fmt.Fprintf(e.Stdout, "this box   %s (%s)\nrelease    %s of %s, %s\nsigned by  %s\n", report.Current, report.Platform, report.Version,
			report.Time.Format(time.DateOnly), applet.Bytes(uint64(report.Size)), report.SignedBy)
		if report.Suits {
			fmt.Fprintln(e.Stdout, "newer; take it with: skywire update apply")
		} else {
			fmt.Fprintln(e.Stdout, report.Why)
		}
		return nil
	})
}

// program is the file that runs, links resolved: the links of all applets lead to it.
func program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return strings.TrimSuffix(self, ".old"), nil // resume is run by the old program
}

// changer is what changes the program of this box.
func (c *updateConfig) changer(f *applet.Flags) (*update.Changer, error) {
	self, err := program()
	if err != nil {
		return nil, err
	}
	return &update.Changer{
		Program: self, State: f.State, Current: applet.Version().Version, Gate: c.Gate, Free: freeBytes, VersionOf: versionOf,
		Talk: func(format string, args ...any) { f.Env().Talk(updateName, format, args...) },
		Lock: func() (func(), error) {
			l, err := signal.Listen(filepath.Join(f.Run, "update.sock"), 0o600)
			if errors.Is(err, signal.ErrInUse) {
				return nil, fmt.Errorf("%w by another process", update.ErrPending)
			}
			if err != nil {
				return nil, err
			}
			return func() { _ = l.Close() }, nil
		},
	}, nil
}

// versionOf asks a program which version of skywire it is.
func versionOf(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := update.Run(ctx, program, "--version", "--json")
	if err != nil {
		return "", err
	}
	var b applet.Build
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	return b.Version, nil
}

const updateApplyAbout = `Fetches the release for this box, checks signature and SHA-256, puts the new program beside the old one (PROGRAM.new), has it
say its version, makes it PROGRAM and the old one PROGRAM.old, and restarts what runs. Then the new version is on trial: if it
does not bring the node, its links and the apps of before back within --gate and stay well, the old program is put back and
runs again, by itself, and this version is not tried again without --force. Power may go at any moment: skywire update resume
at the start of the box ends a trial that was cut off.

A program that a package manager put there is left to the package manager, unless --force. The status is 0 if nothing was newer.`

func updateApply(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update apply", "[--from SOURCE] [--key KEY]… [--gate D] [--restart HOW] [--force]", updateApplyAbout)
	var c updateConfig
	c.sourceFlags(f)
	c.gateFlag(f)
	c.restartFlag(f)
	force := f.Bool("force", false, "also an older version, one that this box has gone back from, or in the place of a packaged program")
	if _, err := c.read(f, 0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runUpdateApply(ctx, f, &c, *force) })
}

func runUpdateApply(ctx context.Context, f *applet.Flags, c *updateConfig, force bool) error {
	u, err := c.changer(f)
	if err != nil {
		return err
	}
	if owner := update.PackageOf(ctx, u.Program); owner != "" && !force {
		return applet.WithCode(applet.Refused, fmt.Errorf("%s came by a package, as %s says: upgrade the package, or say --force", u.Program, owner))
	}
	from, done, err := c.source(ctx, f)
	defer done()
	if err != nil {
		return err
	}
	r, err := c.look(ctx, f, from)
	if err != nil {
		return err
	}
	if errors.Is(r.reject, update.ErrNotNewer) && !force {
		f.Env().Talk(updateName, "nothing to do: %v", r.reject)
		return nil
	}
	if r.reject != nil && !force {
		return applet.WithCode(applet.Refused, fmt.Errorf("%w; --force takes it all the same", r.reject))
	}
	s := &updateService{flags: f, how: c.Restart, program: u.Program}
	if err := s.observe(ctx); err != nil {
		return err
	}
	before, err := json.Marshal(s.before)
	if err != nil {
		return err
	}
	if err := u.Apply(ctx, from, r.manifest, r.file, s, before, force); err != nil {
		if errors.Is(err, update.ErrRejected) {
			err = applet.WithCode(applet.Refused, fmt.Errorf("%w; --force tries it again", err))
		}
		return err
	}
	if f.JSON {
		j, err := update.ReadJournal(f.State)
		if err != nil {
			return err
		}
		return f.Env().PrintJSON(j.Last)
	}
	return nil
}

// updateState is update status --json.
type updateState struct {
	Version  string        `json:"version"`
	Platform string        `json:"platform"`
	Program  string        `json:"program"`
	Old      string        `json:"old,omitempty"` // the version that rollback would put back
	Trial    *update.Trial `json:"trial,omitempty"`
	Last     *update.Past  `json:"last,omitempty"`
	Rejected []string      `json:"rejected"`
	From     string        `json:"from,omitempty"`
	Keys     []string      `json:"keys"`
	Package  string        `json:"package,omitempty"` // the package manager that has the program
}

func updateStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update status", "", "Says which program runs, which is kept beside it, and what came of the last change.")
	var c updateConfig
	if _, err := c.read(f, 0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		self, err := program()
		if err != nil {
			return err
		}
		j, err := update.ReadJournal(f.State)
		if err != nil {
			return err
		}
		s := updateState{
			Version: applet.Version().Version, Platform: releasePlatform(), Program: self, Trial: j.Trial, Last: j.Last,
			Rejected: append([]string{}, j.Rejected...), From: c.From, Keys: append([]string{}, c.Keys...), Package: update.PackageOf(ctx, self),
		}
		a, err := os.Stat(self + ".old")
		if b, berr := os.Stat(self); err == nil && berr == nil && !os.SameFile(a, b) {
			if s.Old, err = versionOf(ctx, self+".old"); err != nil {
				s.Old = "unknown"
			}
		}
		if f.JSON {
			return e.PrintJSON(s)
		}
		return s.print(e)
	})
}

func (s updateState) print(e *applet.Env) error {
	p := func(format string, args ...any) { fmt.Fprintf(e.Stdout, format+"\n", args...) }
	p("runs      %s (%s), %s", s.Version, s.Platform, s.Program)
	if s.Old != "" {
		p("kept      %s, for: skywire update rollback", s.Old)
	}
	if t := s.Trial; t != nil {
		p("on trial  %s since %s, in place of %s", t.To, t.Began.Format(time.RFC3339), t.From)
	}
	if l := s.Last; l != nil {
		p("last      %s: %s to %s on %s", l.Result, l.From, l.To, l.At.Format(time.RFC3339))
		if l.Reason != "" {
			p("          %s", signal.Printable(l.Reason, ""))
		}
	}
	if len(s.Rejected) > 0 {
		p("rejected  %s", strings.Join(s.Rejected, " "))
	}
	switch {
	case len(s.Keys) == 0:
		p("releases  off: no update.keys in config.yaml")
	case s.From == "":
		p("releases  no update.from in config.yaml")
	default:
		p("releases  from %s", s.From)
	}
	return nil
}

func updateRollback(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update rollback", "[--restart HOW]", "Puts PROGRAM.old in the place of the program and restarts what runs. The version given up is not taken again without --force.")
	var c updateConfig
	c.restartFlag(f)
	if _, err := c.read(f, 0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		u, err := c.changer(f)
		if err != nil {
			return err
		}
		s := &updateService{flags: f, how: c.Restart, program: u.Program}
		if err := s.observe(ctx); err != nil {
			return err
		}
		to, err := versionOf(ctx, u.Program+".old")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the old program does not run: %w", err)
		}
		if err := u.Rollback(ctx, s, to); err != nil {
			if errors.Is(err, update.ErrNothing) {
				err = applet.WithCode(applet.NotFound, err)
			}
			return err
		}
		e.Talk(updateName, "%s runs again", to)
		return nil
	})
}

func updateResume(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update resume", "[--gate D]",
		"Ends a change that was cut off: looks at the new version as apply would have, and keeps it or goes back. Without one it does\nnothing. Units and init scripts run it after the daemons, by PROGRAM.old, which is known to work.")
	var c updateConfig
	c.gateFlag(f)
	if _, err := c.read(f, 0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		u, err := c.changer(f)
		if err != nil {
			return err
		}
		_, err = u.Resume(ctx, func(before json.RawMessage) update.Service {
			return &updateService{flags: f, program: u.Program, before: knownBefore(before)}
		})
		return err
	})
}
