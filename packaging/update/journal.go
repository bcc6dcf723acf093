package update

import (
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
	// JournalName is the journal's file in the state folder.
	JournalName = "update.json"
	maxJournal  = 256 << 10
	// maxRejected bounds the versions that are remembered as bad; the oldest goes.
	maxRejected = 16
)

// Results of a change.
const (
	Applied    = "applied"
	Returned   = "returned"    // by itself
	RolledBack = "rolled back" // by a person
	CutOff     = "cut off"     // before the new program was in its place
)

// Journal is what is remembered of changes.
type Journal struct {
	Trial *Trial `json:"trial,omitempty"` // nil: nothing is under way
	Last  *Past  `json:"last,omitempty"`
	// Rejected are versions that this box has gone back from; they are taken again only by force.
	Rejected []string `json:"rejected,omitempty"`
}

// Trial is a change that has begun and has no verdict yet.
type Trial struct {
	From    string          `json:"from"`
	To      string          `json:"to"`
	Program string          `json:"program"`
	SHA256  string          `json:"sha256"` // of the new program
	Began   time.Time       `json:"began"`
	Resumed int             `json:"resumed,omitempty"` // how often somebody has found it cut off
	Before  json.RawMessage `json:"before,omitempty"`  // what ran, in the words of the Service
	// Verdict, where not empty, is why the way back has begun, and Result what will be said of it.
	Verdict string `json:"verdict,omitempty"`
	Result  string `json:"result,omitempty"`
}

// Past is a change that is over.
type Past struct {
	From   string    `json:"from"`
	To     string    `json:"to"`
	At     time.Time `json:"at"`
	Result string    `json:"result"`
	Reason string    `json:"reason,omitempty"`
}

// ReadJournal reads the journal of a state folder; without one it is empty.
func ReadJournal(state string) (Journal, error) {
	var j Journal
	f, err := os.Open(filepath.Join(state, JournalName))
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return j, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err != nil {
		return j, fmt.Errorf("%s: %w; what it says of past changes is lost if it is removed, nothing else", f.Name(), err)
	}
	return j, nil
}

// write puts the journal in place, whole, even if the power goes.
func (j Journal) write(state string) error {
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	path := filepath.Join(state, JournalName)
	// The folder may belong to the user of the daemons, and this runs as root: no name that is known before, which could be a link.
	f, err := os.CreateTemp(state, ".update-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already, if all went well
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return rename(f.Name(), path)
}

// end closes the trial with a result.
func (j *Journal) end(result, reason string, at time.Time) {
	t := j.Trial
	j.Trial = nil
	j.Last = &Past{From: t.From, To: t.To, At: at, Result: result, Reason: reason}
	if result == Returned || result == RolledBack {
		j.reject(t.To)
	} else if result == Applied {
		j.Rejected = slices.DeleteFunc(j.Rejected, func(v string) bool { return v == t.To })
	}
}

func (j *Journal) reject(version string) {
	if !slices.Contains(j.Rejected, version) {
		j.Rejected = append(j.Rejected, version)
	}
	j.Rejected = j.Rejected[max(0, len(j.Rejected)-maxRejected):]
}

// rename moves a file over another and makes the new name last.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && runtime.GOOS == "linux" && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
