package messenger

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const (
	statementsBucket = "statements"
	// maxStatements bounds how many are kept, and of one account a quarter.
	maxStatements = 256
	// shortestID is how much of an id people have to type.
	shortestID = 6
)

// Statement is an item of the kind statement: what a ledger signs. No part of this program reads it; it is kept for one that will,
// and shown to people as it is.
type Statement struct {
	ID      string     `json:"id"` // of the item
	Account key.Public `json:"account"`
	Device  key.Public `json:"device"`
	Time    time.Time  `json:"time"` // when it came
	Body    []byte     `json:"body,omitempty"`
	Bytes   int        `json:"bytes,omitempty"` // of the body
}

// StatementAnswer is what the one who sent it is told.
type StatementAnswer struct {
	Kept       bool `json:"kept"`
	Understood bool `json:"understood"`
}

// Statements are those that came, up to a bound. Its methods may be called from any goroutine.
type Statements struct {
	shelf Shelf
	salt  [32]byte
	most  int64 // bytes

	mu    sync.Mutex // guards the fields below; held over the shelf
	bytes int64
	by    map[key.Public]int
	n     int
}

// OpenStatements reads what is kept. salt hides in the store's keys what a statement says; most bounds the bytes of all.
func OpenStatements(shelf Shelf, salt [32]byte, most int64) (*Statements, error) {
	s := &Statements{shelf: shelf, salt: salt, most: most, by: map[key.Public]int{}}
	err := s.each(func(_ []byte, kept int, x *Statement) { s.count(x.Account, kept) })
	return s, err
}

func (s *Statements) count(account key.Public, kept int) {
	s.n++
	s.by[account]++
	s.bytes += int64(kept)
}

// Take keeps a statement. The same bytes are kept once, whoever brings them.
func (s *Statements) Take(from Sender, it *envelope.Item, now time.Time) (StatementAnswer, error) {
	h := sha256.New()
	h.Write(s.salt[:])
	h.Write(it.Body)
	k := h.Sum(nil)[:16]
	s.mu.Lock()
	defer s.mu.Unlock()
	had, err := s.shelf.Get(statementsBucket, k)
	if err != nil || had != nil {
		return StatementAnswer{Kept: had != nil}, err
	}
	x := Statement{ID: it.ID(from.Account).String(), Account: from.Account, Device: from.Device, Time: now.UTC(), Body: it.Body}
	v := appendJSON(nil, x)
	if s.n >= maxStatements || s.by[from.Account] >= maxStatements/4 || s.bytes+int64(len(v)) > s.most {
		return StatementAnswer{}, signal.Errorf(signal.ErrBusy, "not understood by any app here, and no room to keep it: messenger statements drop, there, makes some")
	}
	if err := s.shelf.Put(statementsBucket, k, v); err != nil {
		return StatementAnswer{}, err
	}
	s.count(from.Account, len(v))
	return StatementAnswer{Kept: true}, nil
}

// List are those kept, the oldest first, without their bodies: all together may be more than a line of signal takes.
func (s *Statements) List() ([]Statement, error) {
	all := []Statement{}
	err := s.each(func(_ []byte, _ int, x *Statement) {
		x.Bytes, x.Body = len(x.Body), nil
		all = append(all, *x)
	})
	sort.Slice(all, func(i, j int) bool {
		if !all[i].Time.Equal(all[j].Time) {
			return all[i].Time.Before(all[j].Time)
		}
		return all[i].ID < all[j].ID
	})
	return all, err
}

// Show is the one whose id begins with word.
func (s *Statements) Show(word string) (Statement, error) {
	_, _, x, err := s.find(word)
	return x, err
}

// Drop takes one off the shelf; if it is brought again it is kept again.
func (s *Statements) Drop(word string) (Statement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, size, x, err := s.find(word)
	if err != nil {
		return x, err
	}
	if err := s.shelf.Delete(statementsBucket, k); err != nil {
		return x, fmt.Errorf("drop statement %s: %w", x.ID, err)
	}
	s.n--
	s.bytes -= int64(size)
	if s.by[x.Account]--; s.by[x.Account] <= 0 {
		delete(s.by, x.Account)
	}
	return x, nil
}

// find also returns the key and how many bytes lie there.
func (s *Statements) find(word string) (at []byte, size int, found Statement, err error) {
	word = strings.ToLower(word)
	n := 0
	err = s.each(func(k []byte, kept int, x *Statement) {
		if len(word) >= shortestID && strings.HasPrefix(x.ID, word) {
			x.Bytes = len(x.Body)
			at, size, found, n = append([]byte(nil), k...), kept, *x, n+1
		}
	})
	if err == nil && n != 1 {
		err = fmt.Errorf("id %q: %w", word, ErrNoStatement)
	}
	return at, size, found, err
}

func (s *Statements) each(f func(k []byte, kept int, x *Statement)) error {
	err := s.shelf.Range(statementsBucket, nil, func(k, v []byte) bool {
		var x Statement
		if json.Unmarshal(v, &x) == nil {
			f(k, len(v), &x)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("read statements: %w", err)
	}
	return nil
}

// Count is how many are kept, and their bytes.
func (s *Statements) Count() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.bytes
}
