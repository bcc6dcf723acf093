package netcfg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// Kinds of journal entries.
const (
	kindOwner   = "owner"  // who holds the device; the first line
	kindUndone  = "undone" // the entry numbered Undone was taken back
	kindLink    = "link"
	kindAddress = "address"
	kindRoute   = "route"
	kindRule    = "rule"
	kindSysctl  = "sysctl"
	kindTable   = "table"   // our own nftables table
	kindHold    = "hold"    // the unreachable routes of Hold
	kindForeign = "foreign" // a rule of ours in somebody else's nftables chain

	kindResolver = "resolver" // in a journal of its own, see Resolver
)

// maxJournal bounds what is read back; a run makes a few dozen entries of 100 bytes, and each reconnection as many.
const maxJournal = 8 << 20

// entry is one line of the journal: enough to take the change back without any other memory.
type entry struct {
	Kind   string `json:"kind"`
	Number int    `json:"number,omitempty"`
	Group  string `json:"group,omitempty"`
	Device string `json:"device,omitempty"`

	PID    int    `json:"pid,omitempty"`
	Boot   string `json:"boot,omitempty"`
	NetNS  uint64 `json:"netns,omitempty"`
	Undone int    `json:"undone,omitempty"`

	Prefix  string       `json:"prefix,omitempty"`
	Route   *Route       `json:"route,omitempty"`
	Rule    *Rule        `json:"rule,omitempty"`
	Sysctl  string       `json:"sysctl,omitempty"`
	Old     string       `json:"old,omitempty"`
	Set     string       `json:"set,omitempty"`
	Foreign *foreignRule `json:"foreign,omitempty"`

	Resolver *resolverChange `json:"resolver,omitempty"`
}

// foreignRule names a rule of ours in another program's chain; it is found again by its comment.
type foreignRule struct {
	Family  uint8  `json:"family"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Comment string `json:"comment"`
}

// journal is an append-only file of entries, locked by its owner. It is not safe for concurrent use.
type journal struct {
	file *os.File
	path string
	next int
	live []entry // applied and not taken back, in order
}

func journalPath(dir, device string) string { return filepath.Join(dir, "vpn-"+device+".journal") }

// openJournal opens and locks the journal and reads what an earlier run left. owner is the first line found, if any.
func openJournal(dir, device string) (_ *journal, owner entry, err error) {
	return openJournalAt(journalPath(dir, device), device)
}

func openJournalAt(path, device string) (_ *journal, owner entry, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, entry{}, fmt.Errorf("make run directory: %w", err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return nil, entry{}, fmt.Errorf("open journal: %w", err)
		}
		locked, err := lockFile(f)
		if err == nil && locked && unlinked(f) { // removed by its owner between our open and our lock
			f.Close()
			continue
		}
		if err != nil {
			return nil, entry{}, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		j := &journal{file: f, path: path}
		owner, err = j.read()
		if !locked {
			return nil, entry{}, errors.Join(&HeldError{Device: device, PID: owner.PID}, f.Close())
		}
		if err != nil {
			return nil, entry{}, errors.Join(fmt.Errorf("read journal %s: %w", path, err), f.Close())
		}
		return j, owner, nil
	}
}

// read collects the entries that were not taken back. A torn last line was never acted on and is skipped.
func (j *journal) read() (owner entry, err error) {
	b, err := io.ReadAll(io.NewSectionReader(j.file, 0, maxJournal))
	if err != nil {
		return entry{}, err
	}
	owner, j.live, j.next = parseJournal(b)
	return owner, nil
}

// parseJournal reads the lines of a journal; lines that are no entry are skipped, since they were never acted on.
func parseJournal(b []byte) (owner entry, live []entry, next int) {
	next = 1
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxJournal)
	for s.Scan() {
		var e entry
		if json.Unmarshal(s.Bytes(), &e) != nil || !e.whole() || e.Number < 0 || e.Number > maxJournal {
			continue
		}
		switch e.Kind {
		case kindOwner:
			owner = e
		case kindUndone:
			live = without(live, e.Undone)
		default:
			live = append(live, e)
			next = max(next, e.Number+1)
		}
	}
	return owner, live, next
}

// whole reports whether an entry has what taking it back needs.
func (e entry) whole() bool {
	switch e.Kind {
	case kindRoute:
		return e.Route != nil && e.Route.Prefix.IsValid()
	case kindRule:
		return e.Rule != nil
	case kindForeign:
		return e.Foreign != nil
	case kindResolver:
		return e.Resolver != nil
	case kindAddress:
		_, err := netip.ParsePrefix(e.Prefix)
		return err == nil
	}
	return true
}

func without(live []entry, number int) []entry {
	for i := range live {
		if live[i].Number == number {
			return append(live[:i:i], live[i+1:]...)
		}
	}
	return live
}

// begin empties the journal and writes who holds it now. Call it when nothing is left to take back.
func (j *journal) begin(owner entry) error {
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("empty journal: %w", err)
	}
	j.live, j.next = nil, 1
	return j.write(owner)
}

// add writes a change that is about to be made and gives it its number.
func (j *journal) add(e entry) (entry, error) {
	e.Number = j.next
	if err := j.write(e); err != nil {
		return e, err
	}
	j.next++
	j.live = append(j.live, e)
	return e, nil
}

// undone writes that a change was taken back, or never came about.
func (j *journal) undone(e entry) error {
	j.live = without(j.live, e.Number)
	return j.write(entry{Kind: kindUndone, Undone: e.Number})
}

func (j *journal) write(e entry) error {
	b, err := json.Marshal(e)
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write journal %s: %w", j.path, err)
	}
	return nil
}

// remove deletes the journal and releases its lock. keep leaves it for the next run.
func (j *journal) remove(keep bool) error {
	var err error
	if !keep {
		if err = os.Remove(j.path); errors.Is(err, fs.ErrNotExist) {
			err = nil // somebody emptied the folder under us
		}
	}
	return errors.Join(err, j.release())
}

// release unlocks before it closes: a child that some other goroutine is about to start holds a copy of the descriptor
// until it runs its program, and with it the lock.
func (j *journal) release() error {
	return errors.Join(unlockFile(j.file), j.file.Close())
}
