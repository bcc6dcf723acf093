package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// keptVersions is how many earlier texts of config.yaml are kept in the state directory.
const keptVersions = 8

// maxConfirm bounds the wait for a confirmation: a box that nobody confirms should come back the same day.
const maxConfirm = 24 * time.Hour

// confirmRetry is how soon a return to the configuration of before is tried again that a disk did not allow.
const confirmRetry = 10 * time.Second

// Version is a text that config.yaml had.
type Version struct {
	Number int       `json:"number"` // rising; 0: config.yaml as it is
	Hash   string    `json:"sha256"` // of the text; "" when there was no file
	Bytes  int       `json:"bytes"`
	Since  time.Time `json:"since"` // when it was put aside, or written
}

// Applied answers viscript.apply, confirm and rollback.
type Applied struct {
	Hash      string  `json:"sha256"`
	Unchanged bool    `json:"unchanged,omitempty"` // config.yaml was so already
	Plan      Plan    `json:"plan"`
	Confirm   float64 `json:"confirm_within_s,omitempty"` // unless confirmed within that, what was before comes back
}

// pending is pending.json: a change that returns by itself. It is on disk before config.yaml changes and goes after
// config.yaml is what it is to stay, so that every moment of a power cut has its way back.
type pending struct {
	Before int           `json:"before"` // version to return to
	Hash   string        `json:"sha256"` // of what is tried
	By     string        `json:"by"`
	Boot   string        `json:"boot_id"`
	Until  time.Duration `json:"until_uptime_ns"` // on the clock of that boot
}

func (s *Supervisor) versionDir() string  { return filepath.Join(s.c.StateDir, "config") }
func (s *Supervisor) pendingFile() string { return filepath.Join(s.versionDir(), "pending.json") }
func (s *Supervisor) versionFile(n int) string {
	return filepath.Join(s.versionDir(), strconv.Itoa(n)+".yaml")
}
func hashOf(text []byte) string { h := sha256.Sum256(text); return hex.EncodeToString(h[:]) }
func (s *Supervisor) parse(b []byte) (*config.File, error) {
	f, err := config.Parse(b)
	if err == nil && s.c.Sections != nil {
		err = f.CheckSections(s.c.Sections)
	}
	if err == nil && s.c.Check != nil {
		err = s.c.Check(f)
	}
	return f, err
}

// Apply makes text the config.yaml of this box and applies the difference. With within > 0 the box returns to what it
// had before, by itself, unless Confirm comes in time: also after a kill, and at once after a reboot, which may be the
// change's doing.
func (s *Supervisor) Apply(ctx context.Context, text []byte, within time.Duration, dry bool, by string) (Applied, error) {
	file, err := s.parse(text)
	if err != nil {
		return Applied{}, signal.Errorf(signal.ErrUsage, "%v", err)
	}
	if within < 0 || within > maxConfirm {
		return Applied{}, signal.Errorf(signal.ErrUsage, "to be confirmed within %v: at most %v", within, maxConfirm)
	}
	s.desired.Lock()
	defer s.desired.Unlock()
	a := Applied{Hash: hashOf(text), Plan: newPlan(dry)}
	if p, err := s.pending(); err != nil || p != nil {
		if err == nil {
			err = signal.Errorf(signal.ErrBusy, "a change by %s waits to be confirmed; first: confirm, or: rollback", p.By)
		}
		return a, err
	}
	old, err := s.configText()
	if err != nil {
		return a, err
	}
	if a.Unchanged = old != nil && hashOf(old) == a.Hash; a.Unchanged || dry {
		return a, s.do(ctx, func() error { s.plan(file, &a.Plan); return nil })
	}
	before, err := s.putAside(old)
	if err != nil {
		return a, fmt.Errorf("nothing was changed: %w", err)
	}
	if within > 0 {
		p := pending{Before: before, Hash: a.Hash, By: by, Boot: proc.BootID(), Until: proc.Uptime() + within}
		if err := writeAtomic(s.pendingFile(), p, true); err != nil {
			return a, fmt.Errorf("nothing was changed: %w", err)
		}
		a.Confirm = within.Seconds()
		s.confirmBy(within)
	}
	if err := s.writeConfig(text); err != nil {
		return a, errors.Join(fmt.Errorf("nothing was changed: %w", err), s.settleChange())
	}
	a.Plan, err = s.Reload(ctx, false)
	return a, err
}

// Confirm keeps the change that Apply made.
func (s *Supervisor) Confirm(ctx context.Context) (Applied, error) {
	s.desired.Lock()
	defer s.desired.Unlock()
	p, err := s.pending()
	switch {
	case err != nil:
		return Applied{}, err
	case p == nil:
		return Applied{}, signal.Errorf(signal.ErrNotFound, "nothing waits to be confirmed")
	}
	if err := s.settleChange(); err != nil {
		return Applied{}, err
	}
	return Applied{Hash: p.Hash, Plan: newPlan(false)}, s.do(ctx, func() error { s.event(nil, "confirmed", p.Hash[:16]); return nil })
}

// Rollback returns to version n, or with 0 to what a change that waits has replaced, else to the newest version.
func (s *Supervisor) Rollback(ctx context.Context, n int) (Applied, error) {
	s.desired.Lock()
	defer s.desired.Unlock()
	return s.rollback(ctx, n)
}

// rollback needs s.desired.
func (s *Supervisor) rollback(ctx context.Context, n int) (Applied, error) {
	a := Applied{Plan: newPlan(false)}
	p, err := s.pending()
	list := s.versions()
	switch {
	case err != nil:
		return a, err
	case n == 0 && p != nil:
		n = p.Before
	case n == 0 && len(list) > 0:
		n = list[0]
	case n == 0:
		return a, signal.Errorf(signal.ErrNotFound, "there is no earlier config.yaml")
	}
	text, err := os.ReadFile(s.versionFile(n))
	if errors.Is(err, fs.ErrNotExist) {
		return a, signal.Errorf(signal.ErrNotFound, "no version %d; see: versions", n)
	} else if err != nil {
		return a, err
	}
	if _, err := s.parse(text); err != nil {
		return a, fmt.Errorf("version %d: %w", n, err)
	}
	if now, err := s.configText(); err == nil && string(now) != string(text) { // somebody's work may be in it
		if _, err := s.putAside(now); err != nil {
			return a, err
		}
	}
	if err := s.writeConfig(text); err != nil {
		return a, err
	}
	if err := s.settleChange(); err != nil {
		return a, err
	}
	a.Hash = hashOf(text)
	if a.Plan, err = s.Reload(ctx, false); err != nil {
		return a, err
	}
	return a, s.do(ctx, func() error { s.event(nil, "rolled-back", fmt.Sprintf("to version %d", n)); return nil })
}

// Versions are the texts of config.yaml, the present one first and then the newest.
func (s *Supervisor) Versions() ([]Version, error) {
	s.desired.Lock()
	defer s.desired.Unlock()
	out := []Version{}
	for _, n := range append([]int{0}, s.versions()...) {
		path := s.c.File
		if n > 0 {
			path = s.versionFile(n)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && n == 0 {
			continue
		} else if err != nil {
			return nil, err
		}
		v := Version{Number: n, Hash: hashOf(b), Bytes: len(b)}
		if st, err := os.Stat(path); err == nil {
			v.Since = st.ModTime().UTC()
		}
		out = append(out, v)
	}
	return out, nil
}

// versions returns the numbers of the kept texts, the newest first. A kept file without bytes stands for none at all.
func (s *Supervisor) versions() []int {
	list, _ := os.ReadDir(s.versionDir())
	top := 0
	have := map[int]bool{}
	for _, d := range list {
		if n, err := strconv.Atoi(strings.TrimSuffix(d.Name(), ".yaml")); err == nil && n > 0 {
			have[n], top = true, max(top, n)
		}
	}
	var out []int
	for n := top; len(out) < len(have); n-- {
		if have[n] {
			out = append(out, n)
		}
	}
	return out
}

// putAside keeps a text and returns its version; one that is the newest already is not kept twice.
func (s *Supervisor) putAside(text []byte) (int, error) {
	if err := os.MkdirAll(s.versionDir(), 0o700); err != nil {
		return 0, err
	}
	list := s.versions()
	n := 1
	if len(list) > 0 {
		if b, err := os.ReadFile(s.versionFile(list[0])); err == nil && string(b) == string(text) {
			return list[0], nil
		}
		n = list[0] + 1
	}
	if err := writeFile(s.versionFile(n), text, 0o600); err != nil {
		return 0, err
	}
	for _, old := range list[min(len(list), keptVersions-1):] {
		os.Remove(s.versionFile(old))
	}
	return n, nil
}

// configText returns config.yaml, nil if there is none.
func (s *Supervisor) configText() ([]byte, error) {
	b, err := os.ReadFile(s.c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (s *Supervisor) writeConfig(text []byte) error {
	mode := fs.FileMode(0o600) // it may hold what only the owner should read
	if st, err := os.Stat(s.c.File); err == nil {
		mode = st.Mode().Perm()
	}
	path := s.c.File
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	return writeFile(path, text, mode)
}

// pending returns the change that waits, nil if none does.
func (s *Supervisor) pending() (*pending, error) {
	b, err := os.ReadFile(s.pendingFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	p := &pending{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", s.pendingFile(), err)
	}
	return p, nil
}

// settleChange ends the wait for a confirmation.
func (s *Supervisor) settleChange() error {
	if s.confirm != nil {
		s.confirm.Stop()
	}
	if err := os.Remove(s.pendingFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(s.versionDir())
}

// confirmBy returns to what was before when nobody confirms within d.
func (s *Supervisor) confirmBy(d time.Duration) {
	if s.confirm != nil {
		s.confirm.Stop()
	}
	s.confirm = time.AfterFunc(d, func() {
		s.desired.Lock()
		defer s.desired.Unlock()
		p, err := s.pending()
		if p == nil && err == nil || s.ctx.Err() != nil {
			return
		}
		s.log.Warn("change not confirmed in time: returning to the config.yaml of before")
		if _, err = s.rollback(s.ctx, 0); err != nil {
			s.log.Error("config.yaml of before is not back", "err", err)
			s.confirmBy(confirmRetry)
		}
	})
}

// endConfirm waits for a return that is under way; what waits longer is for the next viscript.
func (s *Supervisor) endConfirm() {
	s.desired.Lock()
	defer s.desired.Unlock()
	if s.confirm != nil {
		s.confirm.Stop()
	}
}

// takeUpChange looks for a change that an earlier viscript could not see confirmed. In the same boot the wait goes on; a
// box that was started anew returns at once, before anything runs: the change may be why.
func (s *Supervisor) takeUpChange() error {
	s.desired.Lock()
	defer s.desired.Unlock()
	p, err := s.pending()
	if p == nil || err != nil {
		return err
	}
	if left := p.Until - proc.Uptime(); p.Boot != "" && p.Boot == proc.BootID() && left > 0 {
		s.confirmBy(left)
		return nil
	}
	text, err := os.ReadFile(s.versionFile(p.Before))
	if err != nil {
		return err
	}
	if tried, err := s.configText(); err == nil && string(tried) != string(text) {
		if _, err := s.putAside(tried); err != nil {
			return err
		}
	}
	if err := errors.Join(s.writeConfig(text), s.settleChange()); err != nil {
		return err
	}
	s.log.Warn("change was not confirmed before viscript ended: the config.yaml of before is back", "from", p.By)
	s.file, err = s.load()
	return err
}

// writeFile replaces a file by one that is whole on the disk.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".viscript")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names that came and went outlive a power cut, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
