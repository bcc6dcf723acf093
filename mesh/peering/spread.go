package peering

import (
	"context"
	"errors"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// spread acts on news of the book until ctx ends: ties to peered clusters, the other gateways of ours, the other sides.
func (g *Gateway) spread(ctx context.Context, home *app.Client) {
	pushed := map[key.Public]int{} // how much of what is held a gateway of ours has been sent, by its length and numbers
	pulled := time.Time{}
	var again <-chan time.Time
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-g.news:
		case <-again:
		}
		g.retie(ctx)
		others := g.siblings(ctx, home)
		if time.Since(pulled) >= pullEvery && len(others) > 0 {
			pulled = time.Now()
			for _, k := range others {
				g.pull(ctx, home, k)
			}
		}
		again = nil
		if !g.push(ctx, home, others, pushed) {
			again = time.After(tellAgain)
		}
		g.deliver(ctx)
	}
}

// siblings are the other gateways of our cluster.
func (g *Gateway) siblings(ctx context.Context, home *app.Client) (all []key.Public) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	services, err := home.Services(ctx, Service)
	if err != nil {
		return nil
	}
	for _, s := range services {
		if s.Name == Service && s.Online && s.Key != home.Self().Key && len(all) < maxGuests {
			all = append(all, s.Key)
		}
	}
	return all
}

func ownCall(ctx context.Context, home *app.Client, k key.Public, op byte, ask []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	s, err := home.Dial(ctx, k, Service, []byte{protocol, op})
	if err != nil {
		return nil, err
	}
	_, answer, err := converse(ctx, s, ask)
	return answer, err
}

// pull asks a gateway of ours what it holds: this box may have been off when something was revoked.
func (g *Gateway) pull(ctx context.Context, home *app.Client, k key.Public) {
	answer, err := ownCall(ctx, home, k, opGet, nil)
	if err != nil {
		g.c.Log.Debug("gateway not asked", "peer", k, "err", err)
		return
	}
	c := &cursor{b: answer}
	for len(c.b) > 0 && !c.bad {
		if raw := c.bytes(MaxCarried); !c.bad {
			_ = g.put(ctx, raw, true)
		}
	}
}

// push gives the other gateways of ours what is held, when it is another set than they were given, and reports whether all
// of them have it.
func (g *Gateway) push(ctx context.Context, home *app.Client, to []key.Public, pushed map[key.Public]int) bool {
	book, err := g.theBook()
	if err != nil {
		return true
	}
	raws := book.Raws()
	mark := 0
	for _, p := range book.All() {
		e := entry{record: p.Record, end: p.Ended}
		mark += int(e.floor()) + 1
		if p.Ended != nil {
			mark += int(p.Ended.Seq) << 20
		}
	}
	all := true
	for _, k := range to {
		if pushed[k] == mark || len(raws) == 0 {
			continue
		}
		_, err := ownCall(ctx, home, k, opPut, putOf(raws, nil))
		if err != nil && !errors.Is(err, signal.ErrRefused) {
			g.c.Log.Debug("gateway not told", "peer", k, "err", err)
			all = false
			continue
		}
		pushed[k] = mark
	}
	return all
}

// word is something that the other side of a pair is to be told.
type word struct {
	pair Pair
	end  bool // else that the peering goes on under our new key
}

func (w word) String() string {
	if w.end {
		return "end"
	}
	return "rotation"
}

// wordOf is what the other side of a peering needs to hear of us, nil if nothing.
func (g *Gateway) wordOf(book *Book, p *Peering) (w word, seq uint64, raw []byte, issued int64) {
	if p.Record == nil || !p.Moved.IsZero() {
		return w, 0, nil, 0
	}
	raws := book.rawsOf(p.Pair)
	w.pair = p.Pair
	if p.Ended != nil && p.Ended.Seq >= p.Record.Seq {
		if p.Ended.By != book.own {
			return w, 0, nil, 0
		}
		w.end = true
		return w, p.Ended.Seq, raws[0], p.Ended.Issued
	}
	if n := len(p.Changes); n > 0 && p.Changes[n-1].New == book.own {
		return w, p.Record.Seq, raws[len(raws)-1], p.Changes[n-1].Issued
	}
	return w, 0, nil, 0
}

// deliver brings ends and rotations of ours to the other sides that do not have them yet.
func (g *Gateway) deliver(ctx context.Context) {
	book, err := g.theBook()
	if err != nil {
		return
	}
	now := g.now()
	for _, p := range book.All() {
		w, seq, raw, issued := g.wordOf(book, &p)
		if raw == nil {
			continue
		}
		g.mu.Lock()
		done := g.told[w] >= seq || time.Now().Before(g.again[w].at) || now-issued > tellDays*24*3600
		if !done {
			g.told[w] = seq
		}
		g.mu.Unlock()
		if done {
			continue
		}
		go g.bring(ctx, p, w, raw)
	}
}

func (g *Gateway) bring(ctx context.Context, p Peering, w word, raw []byte) {
	if g.c.Send != nil {
		g.c.Send(ctx, p.Other, raw)
	}
	their := p.Theirs()
	why := ""
	for _, gate := range their.Gates {
		_, _, _, err := g.call(ctx, placeOf(their.Cluster, their.Gates, gate.Key), gate.Key, opPut, func(key.Public) []byte { return putOf([][]byte{raw}, nil) })
		if err == nil || errors.Is(err, signal.ErrRefused) {
			if err != nil {
				why = err.Error()
			}
			g.c.Log.Info("other side of peering told", "cluster", p.Alias, "type", w.String(), "err", err)
			g.mu.Lock()
			g.again[w] = retry{heard: true, why: why}
			if !w.end { // a box there that was rolled back looks for us where we are no more
				delete(g.told, w)
				g.again[w] = retry{heard: true, why: why, at: time.Now().Add(tellStill)}
			}
			g.mu.Unlock()
			return
		}
		why = err.Error()
		g.c.Log.Info("other side of peering not told yet", "cluster", p.Alias, "type", w.String(), "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.told, w)
	again := min(max(2*g.again[w].wait, tellAgain), tellMost)
	g.again[w] = retry{at: time.Now().Add(again), wait: again, why: why}
}

// How often a side that is not reached is told that a peering is over, or goes on under our new key, and for how long. Of an
// end it is told anyway when it comes.
const (
	tellAgain = 5 * time.Second
	tellMost  = time.Hour
	tellStill = 6 * time.Hour
	tellDays  = 30
)

// retry is how the other side took what it was told, and when it is tried again.
type retry struct {
	at    time.Time
	wait  time.Duration
	heard bool
	why   string // it refused, or was not reached
}
