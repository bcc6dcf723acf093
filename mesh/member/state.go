package member

import (
	"bytes"
	"fmt"
	"time"

	"skywire/mesh/key"
)

// MaxStatements bounds a State. A cluster of 2,000 nodes has some 2,000 certificates for each admin that renews them,
// and its revocations, which are never dropped.
const (
	MaxStatements  = 8192
	MaxRevocations = 4096
)

// Config of a State.
type Config struct {
	Cluster key.Public // the cluster key
	Floor   int64      // unix seconds, as Floor said last; 0: not known
}

// State is the set of statements that a node holds: of each admin the newest certificate and the newest revocation of each
// node, the newest time of each admin, and the newest admin list.
type State struct {
	cluster key.Public
	network key.NetworkID
	clock   clock

	list   *AdminList
	held   map[Ref]*held
	bySlot map[slot]*held
	ofNode map[key.Public][]*held // certificates of a node, one per admin
	barred map[key.Public][]*held // revocations, alike
	nrev   int
	lists  uint64 // sum over the refs of all but certificates,
	certs  uint64 // and over those

	order []Ref // of all held; nil: to be sorted anew
	names *nameTable
}

// slot is what statements replace each other in.
type slot struct {
	kind        Kind
	admin, node key.Public
}

// held is a statement in the State.
type held struct {
	slot
	ref    Ref
	raw    []byte
	issued int64
	list   *AdminList
	cert   *Certificate
	revoke *Revocation
}

// New makes a State that holds nothing.
func New(c Config, at Instant) *State {
	return &State{
		cluster: c.Cluster, network: key.Cluster(c.Cluster), clock: newClock(c.Floor, at),
		held: map[Ref]*held{}, bySlot: map[slot]*held{}, ofNode: map[key.Public][]*held{}, barred: map[key.Public][]*held{},
	}
}

// Cluster is the cluster key.
func (s *State) Cluster() key.Public { return s.cluster }

// Network is the network id of the cluster.
func (s *State) Network() key.NetworkID { return s.network }

// Len is how many statements are held.
func (s *State) Len() int { return len(s.held) }

// Change is what a statement did.
type Change struct {
	Ref  Ref
	News bool         // it is held now, and was not: to be stored and passed on
	Keys []key.Public // nodes whose rights, name or address may differ now
	All  bool         // everyone's may: the admin list is another
	Gone []Ref        // held no longer: to be removed from the store
	// Floor tells that the floor rose: to be stored.
	Floor bool
}

// Put offers a statement. What is held already makes no News and no error. raw is kept if it is news, and not to be
// changed.
func (s *State) Put(at Instant, raw []byte) (Change, error) {
	ch := Change{Ref: RefOf(raw)}
	if s.held[ch.Ref] != nil {
		return ch, nil
	}
	h, err := s.parse(raw)
	if err != nil {
		return ch, err
	}
	h.ref = ch.Ref
	if err := s.permitted(h); err != nil {
		return ch, err
	}
	old := s.bySlot[h.slot]
	if old != nil && !h.after(old) {
		return ch, fmt.Errorf("%s: %w", h.kind, ErrStale)
	}
	if old == nil && !s.room(h) {
		return ch, fmt.Errorf("%s: %w", h.kind, ErrFull)
	}
	by := h.admin
	if h.kind == KindAdmins {
		by = s.cluster
	}
	if !signedBy(raw, s.network, by) {
		return ch, fmt.Errorf("%s: %w", h.kind, ErrSignature)
	}
	if old != nil {
		s.remove(old)
		ch.Gone = append(ch.Gone, old.ref)
	}
	s.add(h)
	ch.News = true
	switch h.kind {
	case KindAdmins:
		s.list = h.list
		ch.All = true
		ch.Gone = append(ch.Gone, s.dropUntrusted()...)
	case KindCertificate, KindRevocation:
		ch.Keys = []key.Public{h.node}
	}
	ch.Floor = s.clock.hear(at, h.issued)
	return ch, nil
}

// parse decodes a statement.
func (s *State) parse(raw []byte) (h *held, err error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("statement: %w", ErrFormat)
	}
	h = &held{raw: raw}
	switch kind := Kind(raw[0]); kind {
	case KindAdmins:
		if h.list, err = ParseAdminList(raw); err == nil {
			h.slot, h.issued = slot{kind: kind}, h.list.Issued
		}
	case KindTime:
		var t *TimeStatement
		if t, err = ParseTimeStatement(raw); err == nil {
			h.slot, h.issued = slot{kind, t.Admin, key.Public{}}, t.Issued
		}
	case KindRevocation:
		if h.revoke, err = ParseRevocation(raw); err == nil {
			h.slot, h.issued = slot{kind, h.revoke.Admin, h.revoke.Node}, h.revoke.Issued
		}
	case KindCertificate:
		if h.cert, err = ParseCertificate(raw); err == nil {
			h.slot, h.issued = slot{kind, h.cert.Admin, h.cert.Node}, h.cert.Issued
		}
	default:
		err = fmt.Errorf("statement of kind %d: %w", kind, ErrFormat)
	}
	return h, err
}

// permitted tells whether the admin list held lets the signer say this.
func (s *State) permitted(h *held) error {
	if h.kind == KindAdmins {
		return nil
	}
	a, ok := s.list.Find(h.admin)
	switch {
	case !ok,
		h.kind == KindTime && a.Powers&MayTell == 0,
		h.kind == KindRevocation && a.Powers&MayRevoke == 0,
		h.kind == KindCertificate && (h.cert.Cluster != s.network || !a.May(h.cert)):
		return fmt.Errorf("%s of %s: %w", h.kind, h.admin.Short(), ErrUntrusted)
	}
	return nil
}

// after tells whether h replaces old, which lies in the same slot. What is signed twice with one number is settled by the
// bytes, so that all nodes settle it alike.
func (h *held) after(old *held) bool {
	var a, b uint64
	switch h.kind {
	case KindAdmins:
		a, b = h.list.Number, old.list.Number
	case KindRevocation:
		a, b = h.revoke.rank(), old.revoke.rank()
	default:
		a, b = uint64(h.issued), uint64(old.issued)
	}
	return a > b || a == b && bytes.Compare(h.raw, old.raw) > 0
}

// rank orders revocations of a node: by n, then revoked before restored.
func (r *Revocation) rank() uint64 {
	v := uint64(r.N) << 1
	if r.Revoked {
		v++
	}
	return v
}

// room tells whether one more statement fits.
func (s *State) room(h *held) bool {
	if h.kind == KindRevocation && s.nrev >= MaxRevocations {
		return false
	}
	if h.kind == KindAdmins || h.kind == KindRevocation {
		return true // bounded by themselves
	}
	return len(s.held)-s.nrev < MaxStatements-MaxRevocations
}

func (s *State) add(h *held) {
	s.held[h.ref], s.bySlot[h.slot] = h, h
	switch h.kind {
	case KindCertificate:
		s.ofNode[h.node] = append(s.ofNode[h.node], h)
	case KindRevocation:
		s.barred[h.node] = append(s.barred[h.node], h)
		s.nrev++
	}
	*s.sum(h) += h.ref.sum()
	s.order, s.names = nil, nil
}

func (s *State) remove(h *held) {
	delete(s.held, h.ref)
	delete(s.bySlot, h.slot)
	switch h.kind {
	case KindCertificate:
		cut(s.ofNode, h)
	case KindRevocation:
		cut(s.barred, h)
		s.nrev--
	}
	*s.sum(h) -= h.ref.sum()
	s.order, s.names = nil, nil
}

func (s *State) sum(h *held) *uint64 {
	if h.kind == KindCertificate {
		return &s.certs
	}
	return &s.lists
}

func cut(of map[key.Public][]*held, h *held) {
	all := of[h.node]
	for i, o := range all {
		if o == h {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	if len(all) == 0 {
		delete(of, h.node)
		return
	}
	of[h.node] = all
}

// dropUntrusted removes what the list held does not let its signer say.
func (s *State) dropUntrusted() (gone []Ref) {
	for ref, h := range s.held {
		if s.permitted(h) != nil {
			s.remove(h)
			gone = append(gone, ref)
		}
	}
	return gone
}

// Load puts statements from a store: those that others are judged by come first. What is refused now (its signer lost his
// power, the bytes were damaged) is counted.
func (s *State) Load(at Instant, raws [][]byte) (refused int) {
	for kind := KindAdmins; kind <= KindCertificate; kind++ {
		for _, raw := range raws {
			if len(raw) == 0 || Kind(raw[0]) != kind {
				continue
			}
			if _, err := s.Put(at, raw); err != nil {
				refused++
			}
		}
	}
	return refused
}

// Floor is the earliest time it can be, in unix seconds; to be stored when a Change says so.
func (s *State) Floor() int64 { return s.clock.floor }

// Now is the time for people and for asking for a renewal: the box's clock if it is possible, else what is known.
func (s *State) Now(at Instant) time.Time { return time.Unix(s.clock.now(at), 0).UTC() }

// Stamp is the time to sign statements with.
func (s *State) Stamp(at Instant) int64 { return s.clock.stamp(at) }

// Signed is the latest signed time that was believed, in unix seconds; 0 if there was none.
func (s *State) Signed() int64 { return s.clock.signed }

// Clock says what the box's clock is worth.
func (s *State) Clock(at Instant) ClockState { return s.clock.state(at) }

// Over tells whether a time (unix seconds) has passed for certain: below the floor, or by a clock that is confirmed.
func (s *State) Over(at Instant, unix int64) bool { return s.clock.over(at, unix) }
