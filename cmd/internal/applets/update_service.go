//go:build web || !(mips || mipsle || mini)

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/node/api"
	"skywire/packaging/update"
	"skywire/signal"
	"skywire/supervisor"
)

// What restarts the daemons of a box.
const (
	byViscript = "viscript"
	bySystemd  = "systemd"
	byInit     = "init" // /etc/init.d/skywire: procd and OpenRC
	byNobody   = "none"

	initScript    = "/etc/init.d/skywire"
	systemdFolder = "/run/systemd/system"
	updateAsk     = 5 * time.Second
	// upgradeTimeout is how long viscript may take to come back as another version.
	upgradeTimeout = 30 * time.Second
	// viscriptPatience is how long viscript may take to be there.
	viscriptPatience = 10 * time.Second
)

// updateUnits are the units of packages, the node first: the others need it.
var updateUnits = []string{
	"viscript.service", "skywire-node.service", "skywire-manager.service", "skywire-exit.service", "skywire-vpn.service",
	"skywire-socks.service", "skywire-messenger.service",
}

func restartWord(w string) bool {
	return slices.Contains([]string{"", "auto", byViscript, bySystemd, byInit, byNobody}, w)
}

// beforeUpdate is what ran before the change: what must run after it.
type beforeUpdate struct {
	How    string   `json:"how"`
	Units  []string `json:"units,omitempty"`
	IDs    []uint64 `json:"ids,omitempty"`    // viscript's apps that run from the program
	Inproc bool     `json:"inproc,omitempty"` // apps run inside viscript: it must be replaced for them to be
	Node   bool     `json:"node,omitempty"`
	Links  int      `json:"links,omitempty"`
	Apps   []string `json:"apps,omitempty"` // that were registered with the node
}

// updateService is update.Service of a box.
type updateService struct {
	flags    *applet.Flags
	how      string // as said; empty and auto: as found
	program  string
	before   beforeUpdate
	round    int  // of Restart: the second one is the way back
	upgraded bool // viscript is, too
}

// observe looks at what runs.
func (s *updateService) observe(ctx context.Context) error {
	b := &s.before
	if st, apps, err := s.node(ctx); err == nil {
		b.Node, b.Links, b.Apps = true, st.Links, apps
	} else if !errors.Is(err, app.ErrNotRunning) {
		return fmt.Errorf("ask the node: %w", err)
	}
	b.How = s.how
	auto := b.How == "" || b.How == "auto"
	if auto || b.How == byViscript {
		err := s.observeViscript(ctx)
		if err == nil {
			b.How = byViscript
			return nil
		}
		if !auto {
			return fmt.Errorf("ask viscript: %w", err)
		}
	}
	if auto || b.How == bySystemd {
		if _, err := os.Stat(systemdFolder); err == nil && update.Find("systemctl") != "" {
			for _, u := range updateUnits {
				if _, err := update.Run(ctx, "systemctl", "is-active", "--quiet", u); err == nil {
					b.Units = append(b.Units, u)
				}
			}
		}
		switch {
		case len(b.Units) > 0:
			b.How = bySystemd
			return nil
		case !auto:
			return applet.WithCode(applet.NotRunning, errors.New("no unit of skywire is active in systemd"))
		}
	}
	if auto && b.Node {
		if _, err := os.Stat(initScript); err != nil {
			return fmt.Errorf("a node runs here, and not by viscript, systemd or %s: restart it by hand after: update apply --restart none", initScript)
		}
		b.How = byInit
	}
	if auto && !b.Node {
		b.How = byNobody
	}
	return nil
}

// observeViscript finds the apps that run from the program.
func (s *updateService) observeViscript(ctx context.Context) error {
	var items []supervisor.Item
	var in supervisor.Info
	if err := s.viscript(ctx, updateAsk, "viscript.ps", nil, &items); err != nil {
		return err
	}
	if err := s.viscript(ctx, updateAsk, "viscript.status", nil, &in); err != nil {
		return err
	}
	for _, it := range items {
		current, stale := s.runsFrom(it)
		switch {
		case it.PID != nil && *it.PID == in.PID:
			s.before.Inproc = true
		case current, stale:
			s.before.IDs = append(s.before.IDs, it.ID)
		}
	}
	slices.Sort(s.before.IDs)
	return nil
}

// viscript asks the viscript of this box.
func (s *updateService) viscript(ctx context.Context, limit time.Duration, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := signal.Dial(ctx, supervisor.ControlSocket(s.flags.Run), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, params, result)
}

// node asks how the node is, and which apps are with it.
func (s *updateService) node(ctx context.Context) (st api.Status, names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, updateAsk)
	defer cancel()
	c, err := app.Dial(ctx, s.flags.Run)
	if err != nil {
		return st, nil, err
	}
	defer c.Close()
	if err := c.Call(ctx, "node.status", nil, &st); err != nil {
		return st, nil, err
	}
	var apps []api.App
	if err := c.Call(ctx, "app.list", nil, &apps); err != nil {
		return st, nil, err
	}
	for _, a := range apps {
		names = append(names, a.Name)
	}
	return st, names, nil
}

// Restart implements update.Service.
func (s *updateService) Restart(ctx context.Context) error {
	s.round++
	switch s.before.How {
	case byViscript:
		return s.restartByViscript(ctx)
	case bySystemd:
		if s.round > 1 { // one that died too often is not started again otherwise
			_, _ = update.Run(ctx, "systemctl", append([]string{"reset-failed"}, s.before.Units...)...)
		}
		// Whether they come up is for Healthy to see.
		_, err := update.Run(ctx, "systemctl", append([]string{"--no-block", "restart"}, s.before.Units...)...)
		return err
	case byInit:
		_, err := update.Run(ctx, initScript, "restart")
		return err
	}
	s.flags.Env().Talk(updateName, "nothing is restarted")
	return nil
}

// restartByViscript restarts the apps; viscript itself follows when they are well, or at once where apps are inside it and on the
// way back. Apps that run from the program that lies there now are let be: at the start of a box they are.
func (s *updateService) restartByViscript(ctx context.Context) error {
	items, err := s.awaitViscript(ctx)
	if err != nil {
		return s.reviveViscript(ctx, err)
	}
	var errs []error
	for _, it := range items {
		current, stale := s.runsFrom(it)
		if current || !stale && !slices.Contains(s.before.IDs, it.ID) {
			continue
		}
		err := s.viscript(ctx, upgradeTimeout, "viscript.restart", map[string]string{"id": strconv.FormatUint(it.ID, 10)}, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("restart app %s: %w", it.Name, err))
		}
	}
	if s.before.Inproc || s.round > 1 {
		errs = append(errs, s.upgradeViscript(ctx))
	}
	return errors.Join(errs...)
}

// awaitViscript lists viscript's apps; at the start of a box it may not be there yet.
func (s *updateService) awaitViscript(ctx context.Context) (items []supervisor.Item, err error) {
	ctx, cancel := context.WithTimeout(ctx, viscriptPatience)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		if err = s.viscript(ctx, updateAsk, "viscript.ps", map[string]bool{"all": true}, &items); err == nil {
			return items, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// runsFrom tells whether an app runs from the program that lies there now, or from one that lay there before.
func (s *updateService) runsFrom(it supervisor.Item) (current, stale bool) {
	if it.PID == nil {
		return false, false
	}
	exe := "/proc/" + strconv.Itoa(*it.PID) + "/exe"
	a, err := os.Stat(exe)
	if err != nil {
		return false, false
	}
	if b, err := os.Stat(s.program); err == nil && os.SameFile(a, b) {
		return true, false
	}
	path, err := os.Readlink(exe)
	path = strings.TrimSuffix(strings.TrimSuffix(path, " (deleted)"), ".old")
	return false, err == nil && path == s.program
}

// reviveViscript has whoever started viscript start it again.
func (s *updateService) reviveViscript(ctx context.Context, gone error) error {
	if _, err := os.Stat(systemdFolder); err == nil {
		_, err := update.Run(ctx, "systemctl", "restart", "viscript.service")
		return err
	}
	if _, err := os.Stat(initScript); err == nil {
		_, err := update.Run(ctx, initScript, "restart")
		return err
	}
	return fmt.Errorf("viscript is gone (%w): start it again with: viscript run", gone)
}

// upgradeViscript has viscript become the program that lies there now, if it is not.
func (s *updateService) upgradeViscript(ctx context.Context) error {
	want, err := versionOf(ctx, s.program)
	if err != nil {
		return err
	}
	var in supervisor.Info
	if err := s.viscript(ctx, updateAsk, "viscript.status", nil, &in); err != nil {
		return err
	}
	if in.Version == want {
		s.upgraded = true
		return nil
	}
	var up supervisor.Upgraded
	if err := s.viscript(ctx, upgradeTimeout, "viscript.upgrade", nil, &up); err != nil {
		return fmt.Errorf("viscript: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		err := s.viscript(ctx, updateAsk, "viscript.status", nil, &in)
		if err == nil && in.Generation >= up.Generation {
			s.upgraded = true
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return errors.Join(errors.New("viscript did not come back as the new version"), err)
		}
	}
}

// Healthy implements update.Service: the node answers as the version that it should be, half of its links are back (a neighbour may
// have left for reasons of its own), and so are all apps.
func (s *updateService) Healthy(ctx context.Context, version string) error {
	if s.before.How == byNobody {
		return nil
	}
	if s.before.Node {
		st, apps, err := s.node(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("the node does not answer: %w", err)
		case st.Version != version:
			return fmt.Errorf("the node is version %s", st.Version)
		case !st.Ready:
			return errors.New("the node is not ready")
		case st.Links < (s.before.Links+1)/2:
			return fmt.Errorf("%d of %d links are back", st.Links, s.before.Links)
		}
		var missing []string
		for _, name := range s.before.Apps {
			if !slices.Contains(apps, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("apps are not back: %s", strings.Join(missing, " "))
		}
	}
	if s.before.How != byViscript {
		return nil
	}
	return s.viscriptHealthy(ctx, version)
}

func (s *updateService) viscriptHealthy(ctx context.Context, version string) error {
	var items []supervisor.Item
	if err := s.viscript(ctx, updateAsk, "viscript.ps", nil, &items); err != nil {
		return fmt.Errorf("viscript does not answer: %w", err)
	}
	for _, it := range items {
		if slices.Contains(s.before.IDs, it.ID) && it.State != supervisor.Ready && it.State != supervisor.Running {
			return fmt.Errorf("app %s is %s", it.Name, it.State)
		}
	}
	if !s.upgraded {
		if err := s.upgradeViscript(ctx); err != nil {
			return err
		}
	}
	var in supervisor.Info
	if err := s.viscript(ctx, updateAsk, "viscript.status", nil, &in); err != nil {
		return err
	}
	if in.Version != version {
		return fmt.Errorf("viscript is version %s", in.Version)
	}
	return nil
}

var _ update.Service = (*updateService)(nil)

// knownBefore reads what the journal kept; where that is unreadable a node is the least that must run.
func knownBefore(raw json.RawMessage) (b beforeUpdate) {
	if err := json.Unmarshal(raw, &b); err != nil {
		b = beforeUpdate{How: byNobody, Node: true}
	}
	// The journal lies where the daemons' user may write: its words never become arguments as they are.
	b.Units = slices.DeleteFunc(b.Units, func(u string) bool { return !slices.Contains(updateUnits, u) })
	if b.How == bySystemd && len(b.Units) == 0 {
		b.How = byNobody
	}
	return b
}
