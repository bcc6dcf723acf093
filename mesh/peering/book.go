package peering

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Bounds of a book.
const (
	maxPairs   = 64  // peerings in force
	maxEnds    = 512 // pairs in all: what ended is kept for ever, so that no old record revives it
	maxInvites = 64

	bookName = "peering.json"
)

// Quota is what was used of a grant of ours.
type Quota struct {
	Since int64  `json:"since"` // unix seconds
	Bytes uint64 `json:"bytes"`
}

// quotaDays is the time for which a quota holds.
const quotaDays = 30

// entry is what is held of one pair of clusters.
type entry struct {
	Record []byte   `json:"record,omitempty"`
	End    []byte   `json:"end,omitempty"`
	Alias  string   `json:"alias"`           // how we call the other cluster
	Allow  []string `json:"allow,omitempty"` // who of ours may use what it exports; empty: all members
	Used   Quota    `json:"used"`
	// Lists are the newest admin list of the other cluster and its revocations, as far as they came here.
	Lists [][]byte `json:"lists,omitempty"`
	// Moved is the cluster key that took the place of the other cluster's, the zero key: none did. Nodes under the old one are
	// received until Until.
	Moved key.Public `json:"moved,omitzero"`
	Until int64      `json:"until,omitempty"`
	Since uint64     `json:"since,omitempty"` // number of the rotation

	record  *Record
	changes []*Rotation // that made record of what both signed
	end     *End
	state   *member.State // what Lists say; nil: nothing
}

// made is an invite of ours.
type made struct {
	Text    string `json:"invite"` // holds the secret
	Confirm bool   `json:"confirm,omitempty"`
	Pending []byte `json:"pending,omitempty"` // a record that the other side signed
	Done    bool   `json:"done,omitempty"`

	invite *Invite
}

// Book is the peerings of one cluster as this box knows them. Any goroutine may use it.
//
// What it holds is decided by sequence numbers alone: of a pair the record with the highest counts, and an end kills every
// record up to its own number, whichever came first. Lock order: mu alone.
type Book struct {
	own  key.Public
	path string
	at   func() member.Instant

	mu      sync.Mutex        // guards the fields below
	admins  *member.AdminList // of our own cluster, the newest; nil: not known
	pairs   map[Pair]*entry
	invites map[InviteID]*made

	suggested [][]byte     // suggestions, for a person
	dismissed []key.Public // clusters of which none is taken any more
}

type bookFile struct {
	Cluster key.Public `json:"cluster"`
	Pairs   []*entry   `json:"pairs"`
	Invites []*made    `json:"invites"`

	Suggested [][]byte     `json:"suggested,omitempty"`
	Dismissed []key.Public `json:"dismissed,omitempty"`
}

// OpenBook reads the book of a cluster from a state directory; one of another cluster is put aside.
func OpenBook(state string, own key.Public, at func() member.Instant) (*Book, error) {
	b := &Book{own: own, at: at, path: filepath.Join(state, bookName), pairs: map[Pair]*entry{}, invites: map[InviteID]*made{}}
	raw, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("peerings: %w", err)
	}
	f, err := b.read(raw)
	if err != nil {
		return nil, err
	}
	if f.Cluster != own {
		return b, os.Rename(b.path, asideName(b.path, f.Cluster))
	}
	return b, nil
}

// asideName is where the book of another cluster is kept.
func asideName(path string, cluster key.Public) string { return path + "." + cluster.Short() }

// read takes in a file, if it is one of the book's cluster.
func (b *Book) read(raw []byte) (f bookFile, err error) {
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, fmt.Errorf("%s: %w; what was revoked stands in it: bring back a copy, or remove it and revoke again", b.path, err)
	}
	if f.Cluster != b.own {
		return f, nil
	}
	for _, e := range f.Pairs {
		if err := b.load(e); err != nil {
			return f, fmt.Errorf("%s: %w", b.path, err)
		}
	}
	b.suggested, b.dismissed = f.Suggested, f.Dismissed
	for _, m := range f.Invites {
		if m.invite, err = ParseInvite(m.Text); err == nil {
			b.invites[m.invite.ID] = m
		}
	}
	return f, nil
}

func (b *Book) load(e *entry) (err error) {
	var p Pair
	if len(e.End) > 0 {
		if e.end, err = ParseEnd(e.End); err != nil {
			return err
		}
		p = e.end.Pair()
	}
	if len(e.Record) > 0 {
		c, err := parseHeld(e.Record)
		if err != nil {
			return err
		}
		e.record, e.changes = c.last(), c.changes
		p = e.record.Pair()
	}
	if e.record != nil {
		if _, _, ok := e.record.Of(b.own); !ok {
			return ErrUntrusted
		}
		e.learn(b.at(), b.own, e.Lists)
	}
	if e.record != nil || e.end != nil {
		b.pairs[p] = e
	}
	return nil
}

// saveLocked puts the file in its place, whole or not at all.
func (b *Book) saveLocked() error {
	f := bookFile{Cluster: b.own, Suggested: b.suggested, Dismissed: b.dismissed}
	for _, e := range b.pairs {
		f.Pairs = append(f.Pairs, e)
	}
	for _, m := range b.invites {
		f.Invites = append(f.Invites, m)
	}
	sort.Slice(f.Pairs, func(i, j int) bool { return f.Pairs[i].Alias < f.Pairs[j].Alias })
	raw, err := json.Marshal(f)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(b.path), 0o700)
	}
	if err != nil {
		return fmt.Errorf("peerings: %w", err)
	}
	t, err := os.CreateTemp(filepath.Dir(b.path), "."+bookName+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("peerings: %w", err)
	}
	_, err = t.Write(append(raw, '\n'))
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), b.path)
	}
	if err != nil {
		return fmt.Errorf("peerings: %w", errors.Join(err, os.Remove(t.Name())))
	}
	return nil
}

// floorLocked is the highest number of a pair that is used up.
func (e *entry) floor() (n uint64) {
	if e == nil {
		return 0
	}
	if e.record != nil {
		n = e.record.Seq
	}
	if e.end != nil {
		n = max(n, e.end.Seq)
	}
	return n
}

// Floor is the highest number that was used for a pair.
func (b *Book) Floor(p Pair) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pairs[p].floor()
}

// maxLists bounds the statements of another cluster that are kept: its list and its revocations.
const maxLists = 257

// learn takes lists and revocations of the other cluster; news are those that count now and did not.
func (e *entry) learn(at member.Instant, own key.Public, raws [][]byte) (news bool, err error) {
	if e.state == nil {
		_, other, _ := e.record.Of(own)
		e.state = member.New(member.Config{Cluster: other.Cluster}, at)
		e.Lists = nil
		if _, err := e.state.Put(at, other.List); err == nil {
			e.Lists = [][]byte{other.List}
		}
	}
	for _, raw := range raws {
		if len(raw) == 0 || member.Kind(raw[0]) > member.KindRevocation || len(e.Lists) >= maxLists && member.Kind(raw[0]) != member.KindAdmins {
			continue
		}
		ch, perr := e.state.Put(at, raw)
		if perr != nil && !errors.Is(perr, member.ErrStale) && err == nil {
			err = perr
		}
		if !ch.News {
			continue
		}
		news = true
		kept := [][]byte{}
		for _, old := range e.Lists {
			if !slices.Contains(ch.Gone, member.RefOf(old)) {
				kept = append(kept, old)
			}
		}
		e.Lists = append(kept, bytes.Clone(raw))
	}
	return news, err
}

// Learn takes lists and revocations of a cluster that there is a peering with.
func (b *Book) Learn(other key.Public, raws ...[]byte) (news bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pairs[PairOf(b.own, other)]
	if e == nil || e.record == nil {
		return false, errNoPeering
	}
	if news, err = e.learn(b.at(), b.own, raws); news {
		err = errors.Join(err, b.saveLocked())
	}
	return news, err
}

// Member says what another cluster says of a node of its own, by a certificate that is shown and the lists that are known;
// cert may be nil for one that was shown before.
func (b *Book) Member(other, node key.Public, cert []byte) (m member.Membership, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pairs[PairOf(b.own, other)]
	if e == nil || e.state == nil {
		return m, errNoPeering
	}
	at := b.at()
	if e.state.Len() > 2*maxLists { // certificates of many nodes: begin anew without them
		lists := e.Lists
		e.state = nil
		if _, err := e.learn(at, b.own, lists); err != nil {
			return m, err
		}
	}
	if cert != nil {
		if _, err := e.state.Put(at, cert); err != nil && !errors.Is(err, member.ErrStale) {
			return m, err
		}
	}
	return e.state.Member(at, node), nil
}

// SetAdmins tells the book who may sign for our own cluster now.
func (b *Book) SetAdmins(list *member.AdminList) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.admins = list
}

// Trusted tells whether those who signed a peering in force are administrators of their clusters still.
func (b *Book) Trusted(p *Peering) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mayLocked(b.pairs[p.Pair], p.Record)
}
