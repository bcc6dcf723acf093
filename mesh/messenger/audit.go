package messenger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Shelf keeps what must survive, in buckets by key. What the engine has is one; a box without a disk has one in memory.
type Shelf interface {
	Put(bucket string, k, v []byte) error
	Get(bucket string, k []byte) ([]byte, error) // nil: there is none
	Delete(bucket string, k []byte) error
	// Range calls f in rising order of the keys from on, until it says false. f may not call the Shelf.
	Range(bucket string, from []byte, f func(k, v []byte) bool) error
}

// Bounds of the audit. A call of a peer must not be able to push out what others did in a moment, so refusals of one account
// beyond refusalsAnHour are only counted.
const (
	auditBucket    = "audit"
	auditLines     = 2000
	refusalsAnHour = 20
)

// AuditLine is one line of the audit: a call that came by message.
type AuditLine struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	From    string    `json:"from"` // keys as text: to check 2,000 of them costs a small router seconds
	Name    string    `json:"name,omitempty"`
	Device  string    `json:"device"`
	Scope   string    `json:"scope"`
	Verb    string    `json:"verb"`
	Args    []string  `json:"args,omitempty"`
	ID      string    `json:"id"`
	Verdict string    `json:"verdict"` // allowed, refused, failed
	Error   string    `json:"error,omitempty"`
	// Missed is how many refusals of this account were not noted before this line.
	Missed int `json:"missed,omitempty"`
}

// Verdicts of the audit.
const (
	verdictAllowed = "allowed"
	verdictRefused = "refused"
	verdictFailed  = "failed"
)

// Audit is the bounded record of who called what. Its methods may be called from any goroutine.
type Audit struct {
	shelf Shelf

	mu      sync.Mutex // guards the fields below, over the writes too: numbers rise in the order of the lines
	first   uint64
	next    uint64
	refused map[string]*refusals
}

type refusals struct {
	since  time.Time
	noted  int
	missed int
}

// OpenAudit reads where the record ends.
func OpenAudit(s Shelf) (*Audit, error) {
	a := &Audit{shelf: s, next: 1, refused: map[string]*refusals{}}
	err := s.Range(auditBucket, nil, func(k, _ []byte) bool {
		if len(k) == 8 {
			n := binary.BigEndian.Uint64(k)
			if a.first == 0 {
				a.first = n
			}
			a.next = n + 1
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	if a.first == 0 {
		a.first = a.next
	}
	return a, nil
}

// Note adds a line; its number is given here.
func (a *Audit) Note(line AuditLine) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if line.Verdict == verdictRefused && !a.roomLocked(&line) {
		return nil
	}
	line.Seq = a.next
	raw, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if err := a.shelf.Put(auditBucket, seqKey(line.Seq), raw); err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	a.next++
	for a.next-a.first > auditLines {
		if err := a.shelf.Delete(auditBucket, seqKey(a.first)); err != nil {
			return fmt.Errorf("shorten the audit: %w", err)
		}
		a.first++
	}
	return nil
}

// roomLocked tells whether a refusal is noted, and adds to it how many were not.
func (a *Audit) roomLocked(line *AuditLine) bool {
	r := a.refused[line.From]
	if r == nil {
		if len(a.refused) >= MaxContacts {
			clear(a.refused)
		}
		r = &refusals{since: line.Time}
		a.refused[line.From] = r
	}
	if line.Time.Sub(r.since) >= time.Hour {
		r.since, r.noted = line.Time, 0
	}
	if r.noted >= refusalsAnHour {
		r.missed++
		return false
	}
	r.noted++
	line.Missed, r.missed = r.missed, 0
	return true
}

// Lines returns the last n lines, the oldest first; n of 0 is all.
func (a *Audit) Lines(n int) ([]AuditLine, error) {
	a.mu.Lock()
	from := a.first
	if n > 0 && a.next-from > uint64(n) {
		from = a.next - uint64(n)
	}
	a.mu.Unlock()
	lines := []AuditLine{}
	err := a.shelf.Range(auditBucket, seqKey(from), func(_, v []byte) bool {
		var l AuditLine
		if json.Unmarshal(v, &l) == nil {
			lines = append(lines, l)
		}
		return true
	})
	return lines, err
}

func seqKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
