package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

const (
	// lookEvery is how often the new program is looked at, settle how long it must be well without a break: a daemon that
	// starts, answers and dies is not.
	lookEvery = 500 * time.Millisecond
	settle    = 4 * time.Second
	// maxResumes is how often a trial may be cut off before the new version is taken to be the reason.
	maxResumes = 2
	// spare is what stays free beside the new program.
	spare = 1 << 20
	// returnTimeout bounds the way back, which goes on when whoever asked for the change has gone.
	returnTimeout = 2 * time.Minute
)

// Service is what runs from the program.
type Service interface {
	// Restart has everything run from the program that lies there now.
	Restart(ctx context.Context) error
	// Healthy says what is missing of what ran before the change, nil if nothing is; version is what must answer.
	Healthy(ctx context.Context, version string) error
}

// Changer changes one program. Apply, Resume and Rollback hold Lock while they work.
type Changer struct {
	Program string // the file that runs, links resolved
	State   string // the folder of the journal
	Current string // the version of Program
	Gate    time.Duration
	// Settle is how long the new program must be well without a break; 0: four seconds.
	Settle time.Duration
	// Free is the space that a folder has left. VersionOf asks a program which version it is.
	Free      func(dir string) (uint64, error)
	VersionOf func(ctx context.Context, program string) (string, error)
	// Lock keeps a second change of the box away, and lets go with the process; ErrPending, if somebody has it.
	Lock func() (unlock func(), err error)
	// Talk tells a person what happens.
	Talk func(format string, args ...any)

	step func(name string) // tests cut the power here
	now  func() time.Time
}

func (c *Changer) old() string   { return c.Program + ".old" }
func (c *Changer) fresh() string { return c.Program + ".new" }

func (c *Changer) at(step string) {
	if c.step != nil {
		c.step(step)
	}
}

func (c *Changer) time() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
}

// Apply fetches f of the release m, puts it in the place of the program, restarts the service, and goes back if that is not well
// within Gate. before is kept in the journal for whoever resumes.
func (c *Changer) Apply(ctx context.Context, from Source, m Manifest, f File, s Service, before json.RawMessage, force bool) error {
	if runtime.GOOS == "windows" {
		return fmt.Errorf("change the program: %w on this system, where a file that runs can't be replaced: stop everything and unpack the new one", errors.ErrUnsupported)
	}
	j, unlock, err := c.begin()
	if err != nil {
		return err
	}
	defer unlock()
	if j.Trial != nil {
		return fmt.Errorf("%w, from %s to %s: skywire update resume ends it", ErrPending, j.Trial.From, j.Trial.To)
	}
	if slices.Contains(j.Rejected, m.Version) && !force {
		return fmt.Errorf("%s: %w", m.Version, ErrRejected)
	}
	if err := c.fetch(ctx, from, f); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(c.fresh())))
	}
	if err := c.try(ctx, m.Version); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(c.fresh())))
	}
	c.at("staged")
	if err := keep(c.Program, c.old()); err != nil {
		return fmt.Errorf("keep the old program: %w", err)
	}
	c.at("kept")
	j.Trial = &Trial{From: c.Current, To: m.Version, Program: c.Program, SHA256: f.SHA256, Began: c.time().UTC(), Before: before}
	if err := j.write(c.State); err != nil {
		return err
	}
	c.at("noted")
	if err := rename(c.fresh(), c.Program); err != nil {
		j.end(CutOff, err.Error(), c.time())
		return errors.Join(err, j.write(c.State))
	}
	c.at("changed")
	return c.judge(ctx, &j, s)
}

// Resume ends a trial that was cut off: by power, or because whoever began it was killed. Without one it does nothing and reports
// false.
func (c *Changer) Resume(ctx context.Context, s func(before json.RawMessage) Service) (bool, error) {
	j, unlock, err := c.begin()
	if err != nil {
		return false, err
	}
	defer unlock()
	if j.Trial == nil {
		return false, ignoreMissing(os.Remove(c.fresh()))
	}
	t := j.Trial
	if t.Program != c.Program { // the journal lies where the daemons' user may write: it says what happened, not what to replace
		return true, fmt.Errorf("the journal speaks of %s, this is %s: run resume by that one, or remove %s", t.Program, c.Program, filepath.Join(c.State, JournalName))
	}
	if t.Verdict != "" {
		return true, c.goBack(ctx, &j, s(t.Before), t.Result, t.Verdict)
	}
	changed, err := same(c.Program, t.SHA256)
	if err != nil {
		return true, err
	}
	if !changed { // the power went before the new program was in its place
		j.end(CutOff, "the change was cut off before the new program was in its place", c.time())
		err := errors.Join(ignoreMissing(os.Remove(c.fresh())), j.write(c.State))
		c.Talk("the change to %s was cut off; %s goes on", t.To, t.From)
		return true, err
	}
	t.Resumed++
	if err := j.write(c.State); err != nil {
		return true, err
	}
	service := s(t.Before)
	if t.Resumed > maxResumes {
		return true, c.goBack(ctx, &j, service, Returned, fmt.Sprintf("cut off %d times", t.Resumed))
	}
	c.Talk("%s is on trial since %s; looking at it again", t.To, t.Began.Format(time.RFC3339))
	return true, c.judge(ctx, &j, service)
}

// Rollback puts the program of before back, at a person's wish.
func (c *Changer) Rollback(ctx context.Context, s Service, to string) error {
	j, unlock, err := c.begin()
	if err != nil {
		return err
	}
	defer unlock()
	if j.Trial != nil {
		return c.goBack(ctx, &j, s, RolledBack, "asked for")
	}
	a, err := os.Stat(c.old())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no %s", ErrNothing, c.old())
	}
	if err != nil {
		return err
	}
	if b, err := os.Stat(c.Program); err == nil && os.SameFile(a, b) {
		return fmt.Errorf("%w: %s is the one that runs", ErrNothing, c.old())
	}
	sum, _, err := digest(c.Program)
	if err != nil {
		return err
	}
	j.Trial = &Trial{From: to, To: c.Current, Program: c.Program, SHA256: sum, Began: c.time().UTC()}
	return c.goBack(ctx, &j, s, RolledBack, "asked for")
}

// begin takes the lock and reads the journal.
func (c *Changer) begin() (Journal, func(), error) {
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return Journal{}, nil, err
	}
	unlock, err := c.Lock()
	if err != nil {
		return Journal{}, nil, err
	}
	j, err := ReadJournal(c.State)
	if err != nil {
		unlock()
		return j, nil, err
	}
	return j, unlock, nil
}

// fetch makes PROGRAM.new the file that f means, or an error.
func (c *Changer) fetch(ctx context.Context, from Source, f File) error {
	dir := filepath.Dir(c.Program)
	if free, err := c.Free(dir); err == nil && free < uint64(f.Size)+spare {
		return fmt.Errorf("%w: %s has %d bytes free, the new program needs %d", ErrSpace, dir, free, f.Size+spare)
	}
	c.Talk("fetching %s, %d bytes", f.Name, f.Size)
	r, err := from.Open(ctx, f.Name)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(c.fresh(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	c.at("fetching")
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, f.Size+1))
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = w.Chmod(0o755) // whatever the umask
	}
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("fetch %s: %w", f.Name, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != f.Size || got != f.SHA256 {
		return fmt.Errorf("%s is %w: %d bytes of %d, SHA-256 %s", f.Name, ErrFile, n, f.Size, got)
	}
	return nil
}

// try runs the new program where it lies: one that can't even say its version never gets any further.
func (c *Changer) try(ctx context.Context, version string) error {
	got, err := c.VersionOf(ctx, c.fresh())
	if err != nil {
		return fmt.Errorf("the new program does not run on this box: %w", err)
	}
	if got != version {
		return fmt.Errorf("%w: it says it is %.80q, not %q", ErrFile, got, version)
	}
	return nil
}

// judge restarts the service, waits for it to be well, and keeps the new program or goes back.
func (c *Changer) judge(ctx context.Context, j *Journal, s Service) error {
	err := s.Restart(ctx)
	c.at("restarted")
	if err == nil {
		err = c.watch(ctx, s, j.Trial.To, c.Gate)
	}
	c.at("judged")
	if err != nil {
		reason := err.Error()
		if ctx.Err() != nil {
			reason = "interrupted: " + reason
		}
		return c.goBack(ctx, j, s, Returned, reason)
	}
	j.end(Applied, "", c.time().UTC())
	if err := j.write(c.State); err != nil {
		return err
	}
	c.Talk("%s runs and is well; %s is kept as %s", j.Last.To, j.Last.From, c.old())
	return nil
}

// backGate is how long the old program has at least to be well again: there is nothing else to try.
const backGate = 10 * time.Second

// watch returns nil when the service has been well for a while, and what is missing when the time is over.
func (c *Changer) watch(ctx context.Context, s Service, version string, gate time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, gate)
	defer cancel()
	long := c.Settle
	if long == 0 {
		long = min(settle, c.Gate/2)
	}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var well time.Time // since when
	last := errors.New("nothing has answered")
	for {
		switch err := s.Healthy(ctx, version); {
		case err != nil && ctx.Err() == nil:
			well, last = time.Time{}, err
		case err != nil:
		case well.IsZero():
			well = time.Now()
		case time.Since(well) >= long:
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("not well within %v: %w", gate, last)
		}
	}
}

// goBack puts PROGRAM.old in the place of the program and has it run. It does not stop when ctx does.
func (c *Changer) goBack(ctx context.Context, j *Journal, s Service, result, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnTimeout)
	defer cancel()
	j.Trial.Verdict, j.Trial.Result = reason, result
	t := *j.Trial
	if err := j.write(c.State); err != nil {
		c.Talk("the journal can't be written, going back all the same: %v", err)
	}
	c.at("verdict")
	c.Talk("going back from %s to %s: %s", t.To, t.From, reason)
	if err := keep(c.old(), c.Program); err != nil {
		return fmt.Errorf("%s is no good (%s), and the old program can't be put back: %w; copy %s over %s by hand", t.To, reason, err, c.old(), c.Program)
	}
	c.at("back")
	err := s.Restart(ctx)
	c.at("back and restarted")
	if err == nil {
		if werr := c.watch(ctx, s, t.From, max(c.Gate, backGate)); werr != nil {
			err = fmt.Errorf("%s is back and not well either: %w", t.From, werr)
		}
	}
	j.end(result, reason, c.time().UTC())
	err = errors.Join(err, j.write(c.State))
	if result == Returned {
		return errors.Join(fmt.Errorf("%w: %s: %s", ErrReturned, t.To, reason), err)
	}
	return err
}

// keep makes the name to, in one step, another name of the file from: a hard link, or a copy where there are none.
func keep(from, to string) error {
	temp := to + ".part"
	if err := ignoreMissing(os.Remove(temp)); err != nil {
		return err
	}
	a, err := os.Stat(from)
	if err != nil {
		return err
	}
	if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
		return nil // rename(2) between two names of one file does nothing, and would leave temp
	}
	if os.Link(from, temp) != nil {
		if err := copyFile(from, temp); err != nil {
			return errors.Join(err, os.Remove(temp))
		}
	}
	return rename(temp, to)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil {
		err = errors.Join(w.Chmod(0o755), w.Sync())
	}
	return errors.Join(err, w.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
