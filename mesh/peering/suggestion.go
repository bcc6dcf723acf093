package peering

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// An introduction is a suggestion: one cluster tells another of a third, with which it is peered. It gives no right and starts
// nothing. The two agree as any two do, by an invite; what was dismissed does not come back, whoever suggests it.

const (
	kindSuggestion    = 6
	purposeSuggestion = "peering-suggestion"

	suggestedFor   = 30 * 24 * 3600 // seconds, at most
	maxSuggestions = 32
	maxOfOne       = 8 // of one cluster
	maxDismissed   = 512
)

// Suggestion is the word of a peered cluster about a third one.
type Suggestion struct {
	By, To, About key.Public // clusters
	Issued        int64
	Expires       int64
	Name          string // how By calls About
	Gates         []member.Contact
	Admin         key.Public // of By
	List          []byte
}

// Sign encodes the suggestion:
//
//	kind 6 │ version 1 │ by 32 │ to 32 │ about 32 │ issued 8 │ expires 8 │ name │ gates 1, each {key 32, text} │ admin 32 │
//	list {length 2, bytes} │ signature 64
func (s *Suggestion) Sign(admin *key.Private) ([]byte, error) {
	b := []byte{kindSuggestion, recordVersion}
	for _, k := range []key.Public{s.By, s.To, s.About} {
		b = append(b, k[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(s.Issued))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Expires))
	who := admin.Public()
	b = appendBytes(append(appendGates(appendText(b, s.Name), s.Gates), who[:]...), s.List)
	sig := admin.Sign(purposeSuggestion, key.NetworkID{}, b)
	raw := append(b, sig[:]...)
	if _, err := ParseSuggestion(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseSuggestion decodes a suggestion and checks its signature.
func ParseSuggestion(raw []byte) (*Suggestion, error) {
	if len(raw) > MaxRecord || len(raw) < signatureLen {
		return nil, fmt.Errorf("suggestion: %w", ErrFormat)
	}
	at := len(raw) - signatureLen
	c := &cursor{b: raw[:at]}
	kind, version := c.u8(), c.u8()
	s := &Suggestion{
		By: c.key(false), To: c.key(false), About: c.key(false), Issued: c.unix(), Expires: c.unix(), Name: c.name(false), Gates: c.gates(),
		Admin: c.key(false), List: c.bytes(member.MaxStatement),
	}
	c.bad = c.bad || kind != kindSuggestion || version != recordVersion || s.By == s.To || s.By == s.About || s.To == s.About ||
		s.Expires <= s.Issued || s.Expires-s.Issued > suggestedFor
	if err := c.end("suggestion"); err != nil {
		return nil, err
	}
	if err := mayPeer(s.By, s.List, s.Admin, member.MayIssue); err != nil {
		return nil, err
	}
	if !s.Admin.Verify(purposeSuggestion, key.NetworkID{}, raw[:at], raw[at:]) {
		return nil, fmt.Errorf("suggestion: %w", ErrSignature)
	}
	return s, nil
}

// Suggest takes a suggestion of a cluster that there is a peering with, for us.
func (b *Book) Suggest(raw []byte, now int64) (s *Suggestion, news bool, err error) {
	if s, err = ParseSuggestion(raw); err != nil {
		return nil, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	by := b.pairs[PairOf(b.own, s.By)]
	switch {
	case s.To != b.own || !by.inForce(now) || !by.Moved.IsZero():
		return nil, false, fmt.Errorf("suggestion that is not of a peered cluster for us: %w", ErrUntrusted)
	case now >= s.Expires:
		return nil, false, fmt.Errorf("suggestion: %w", ErrStale)
	case slices.Contains(b.dismissed, s.About) || b.pairs[PairOf(b.own, s.About)] != nil:
		return s, false, nil // a person has decided on it; who suggests it does not learn how
	}
	if err := by.mayTheirs(b.at(), s.List, s.Admin, member.MayIssue); err != nil {
		return nil, false, err
	}
	b.pruneLocked(now)
	ofOne, i := 0, -1
	for n, raw := range b.suggested {
		held, err := ParseSuggestion(raw)
		if err != nil {
			continue
		}
		if held.By == s.By {
			ofOne++
		}
		if held.By == s.By && held.About == s.About {
			i = n
		}
	}
	switch {
	case i >= 0 && bytes.Equal(b.suggested[i], raw):
		return s, false, nil
	case i >= 0:
		b.suggested[i] = bytes.Clone(raw)
		return s, false, b.saveLocked()
	case ofOne >= maxOfOne || len(b.suggested) >= maxSuggestions:
		return nil, false, ErrFull
	}
	b.suggested = append(b.suggested, bytes.Clone(raw))
	return s, true, b.saveLocked()
}

// pruneLocked forgets what expired, what was dismissed, and clusters with which something was agreed or ended since.
func (b *Book) pruneLocked(now int64) {
	b.suggested = slices.DeleteFunc(b.suggested, func(raw []byte) bool {
		s, err := ParseSuggestion(raw)
		return err != nil || s.To != b.own || now >= s.Expires || slices.Contains(b.dismissed, s.About) || b.pairs[PairOf(b.own, s.About)] != nil
	})
}

// Suggestions are those that wait for a person.
func (b *Book) Suggestions(now int64) (all []*Suggestion) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pruneLocked(now)
	for _, raw := range b.suggested {
		if s, err := ParseSuggestion(raw); err == nil {
			all = append(all, s)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// Dismiss forgets all suggestions of a cluster, and those to come.
func (b *Book) Dismiss(about key.Public) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dismissed) >= maxDismissed {
		return ErrFull
	}
	b.dismissed = append(b.dismissed, about)
	b.suggested = slices.DeleteFunc(b.suggested, func(raw []byte) bool {
		s, err := ParseSuggestion(raw)
		return err != nil || s.About == about
	})
	return b.saveLocked()
}

// IntroduceParams is peer.introduce: two peerings. Each side hears of the other.
type IntroduceParams struct {
	Peers    [2]string `json:"peers"`
	ExpiresS int64     `json:"expires_s,omitempty"` // 0: 30 days
}

// IntroducedInfo is one answer of peer.introduce.
type IntroducedInfo struct {
	To    string `json:"to"`
	About string `json:"about"`
	Told  bool   `json:"told"`
	Why   string `json:"why,omitempty"`
}

// SuggestionInfo is a suggestion for people.
type SuggestionInfo struct {
	Name    string     `json:"name"`
	Cluster key.Public `json:"cluster"`
	By      string     `json:"by"` // our name for who suggests it
	Gates   []string   `json:"gates"`
	Expires time.Time  `json:"expires"`
	Number  string     `json:"safety_number"`
}

func (g *Gateway) methodIntroduce(ctx context.Context, p IntroduceParams) (any, error) {
	book, _, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	admin, err := g.admin(own, member.MayIssue)
	if err != nil {
		return nil, err
	}
	var both [2]Peering
	for i, w := range p.Peers {
		if both[i], err = book.Find(w); err != nil {
			return nil, err
		}
		if both[i].Record == nil || g.holds(&both[i]) != nil {
			return nil, signal.Errorf(signal.ErrRefused, "the peering with %s is not in force", both[i].Alias)
		}
	}
	if both[0].Other == both[1].Other {
		return nil, signal.Errorf(signal.ErrUsage, "two clusters are needed")
	}
	all := []IntroducedInfo{}
	for i, to := range both {
		about := both[1-i]
		now := g.now()
		s := Suggestion{
			By: own.cluster, To: to.Other, About: about.Other, Issued: now, Expires: now + min(orDefault(p.ExpiresS, suggestedFor), suggestedFor),
			Name: about.Alias, Gates: about.Theirs().Gates, List: own.list,
		}
		raw, err := s.Sign(admin)
		if err != nil {
			return nil, err
		}
		told := IntroducedInfo{To: to.Alias, About: about.Alias}
		their := to.Theirs()
		for _, gate := range their.Gates {
			_, _, _, err = g.call(ctx, placeOf(their.Cluster, their.Gates, gate.Key), gate.Key, opPut, func(key.Public) []byte { return putOf([][]byte{raw}, nil) })
			if err == nil || errors.Is(err, signal.ErrRefused) {
				break
			}
		}
		if told.Told = err == nil; err != nil {
			told.Why = err.Error()
		}
		all = append(all, told)
	}
	return all, nil
}

func (g *Gateway) methodDismiss(_ context.Context, p PeerParams) (any, error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	for _, s := range book.Suggestions(g.now()) {
		if s.Name == p.Peer || s.About.String() == p.Peer || s.About.Short() == p.Peer {
			return struct{}{}, book.Dismiss(s.About)
		}
	}
	return nil, signal.Errorf(signal.ErrNotFound, "no such suggestion (skywire messenger peer list)")
}

func (g *Gateway) suggestions(book *Book) []SuggestionInfo {
	all := []SuggestionInfo{}
	for _, s := range book.Suggestions(g.now()) {
		i := SuggestionInfo{Name: s.Name, Cluster: s.About, By: s.By.Short(), Expires: time.Unix(s.Expires, 0).UTC(), Number: envelope.SafetyNumber(book.own, s.About)}
		if p, ok := book.With(s.By); ok {
			i.By = p.Alias
		}
		for _, c := range s.Gates {
			i.Gates = append(i.Gates, c.Key.String()+"@"+c.Addr)
		}
		all = append(all, i)
	}
	return all
}

// suggested takes a suggestion that somebody brought.
func (g *Gateway) suggested(raw []byte) error {
	book, err := g.theBook()
	if err != nil {
		return err
	}
	s, news, err := book.Suggest(raw, g.now())
	if err != nil {
		g.c.Log.Warn("suggestion refused", "err", err)
		return err
	}
	if news {
		g.c.Log.Info("a cluster is suggested", "cluster", s.Name, "from", s.By)
		g.c.Note(s.By, "", "suggests to peer with cluster "+s.About.String()+" ("+s.Name+")")
	}
	return nil
}
