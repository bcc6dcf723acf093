package member

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// MaxRefs bounds a page.
const MaxRefs = 96

// Digest is 8 bytes of all that is held: equal for who holds the same, whatever way it came.
func (s *State) Digest() (d [8]byte) {
	binary.BigEndian.PutUint64(d[:], s.lists+s.certs)
	return d
}

// ListsDigest is the same of all but the certificates: what even guests may see, and what a neighbour must hold before
// anything is admitted. It goes into the payload of the handshake.
func (s *State) ListsDigest() (d [8]byte) {
	binary.BigEndian.PutUint64(d[:], s.lists)
	return d
}

// Page names what its sender holds between two refs. Who receives it sends the statements that it holds there and the page
// does not name (Lacking). When pages from the zero Ref to the end have gone both ways, both hold the same.
type Page struct {
	After, Last Ref // what follows After, up to Last and with it
	Refs        []Ref
}

// lastOf is above all refs of a kind and of those before it.
func lastOf(k Kind) Ref { return Ref{byte(k), 255, 255, 255, 255, 255, 255, 255, 255} }

// Done tells that no page follows.
func (p Page) Done() bool { return p.Last == lastOf(lastKind) || p.Last == lastOf(KindRevocation) }

// Append encodes the page: after 9 │ last 9 │ refs 9 each, rising.
func (p Page) Append(dst []byte) []byte {
	dst = append(append(dst, p.After[:]...), p.Last[:]...)
	for _, r := range p.Refs {
		dst = append(dst, r[:]...)
	}
	return dst
}

// ParsePage decodes a page.
func ParsePage(b []byte) (Page, error) {
	const n = len(Ref{})
	if len(b) < 2*n || len(b)%n != 0 || len(b)/n-2 > MaxRefs {
		return Page{}, fmt.Errorf("page: %w", ErrFormat)
	}
	p := Page{After: Ref(b[:n]), Last: Ref(b[n : 2*n])}
	at := p.After
	for b = b[2*n:]; len(b) > 0; b = b[n:] {
		r := Ref(b[:n])
		if !at.less(r) || p.Last.less(r) {
			return Page{}, fmt.Errorf("page: %w", ErrFormat)
		}
		p.Refs, at = append(p.Refs, r), r
	}
	if !p.After.less(p.Last) {
		return Page{}, fmt.Errorf("page: %w", ErrFormat)
	}
	return p, nil
}

// sorted is all refs in order.
func (s *State) sorted() []Ref {
	if s.order == nil {
		s.order = make([]Ref, 0, len(s.held))
		for r := range s.held {
			s.order = append(s.order, r)
		}
		sort.Slice(s.order, func(i, j int) bool { return s.order[i].less(s.order[j]) })
	}
	return s.order
}

// between is where the refs after the one and up to the other lie in sorted.
func (s *State) between(after, last Ref) []Ref {
	all := s.sorted()
	from := sort.Search(len(all), func(i int) bool { return after.less(all[i]) })
	to := sort.Search(len(all), func(i int) bool { return last.less(all[i]) })
	return all[from:max(from, to)]
}

// Page names what follows after, MaxRefs at most; the next page follows its Last, unless it is Done.
func (s *State) Page(after Ref) Page { return s.page(after, lastOf(lastKind)) }

// ListsPage is a Page without certificates.
func (s *State) ListsPage(after Ref) Page { return s.page(after, lastOf(KindRevocation)) }

func (s *State) page(after, last Ref) Page {
	refs := s.between(after, last)
	if len(refs) <= MaxRefs {
		return Page{After: after, Last: last, Refs: append([]Ref(nil), refs...)}
	}
	refs = refs[:MaxRefs]
	return Page{After: after, Last: refs[MaxRefs-1], Refs: append([]Ref(nil), refs...)}
}

// Lacking returns the statements that the sender of a page lacks and this State has, in the order to send them in.
func (s *State) Lacking(p Page) (raws [][]byte) {
	at := 0
	for _, r := range s.between(p.After, p.Last) {
		for at < len(p.Refs) && p.Refs[at].less(r) {
			at++
		}
		if at == len(p.Refs) || p.Refs[at] != r {
			raws = append(raws, s.held[r].raw)
		}
	}
	return raws
}

// Raws returns statements as signed, in order: what follows after, as many as have most bytes in all, one at least. next is
// the ref to go on with; it is after itself when there were none.
func (s *State) Raws(after Ref, most int) (raws [][]byte, next Ref) {
	for _, r := range s.between(after, lastOf(lastKind)) {
		raw := s.held[r].raw
		if most -= len(raw); most < 0 && len(raws) > 0 {
			break
		}
		raws, after = append(raws, raw), r
	}
	return raws, after
}
