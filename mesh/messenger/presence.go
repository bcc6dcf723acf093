package messenger

import (
	"sync"
	"time"

	"skywire/mesh/key"
)

// awayAfter is how long after its last word an account that no network shows counts as here. The engine's streams to it are kept
// alive by their traffic, so an account that is here says something within it.
const awayAfter = 3 * time.Minute

// Presence is who was seen when: by the home network's records, and by what came from them. Its methods may be called from any
// goroutine.
type Presence struct {
	mu   sync.Mutex // guards the fields below
	here map[key.Public]bool
	seen map[key.Public]time.Time
	told map[key.Public]bool // as Look said last
}

// NewPresence returns one that knows nobody.
func NewPresence() *Presence {
	return &Presence{here: map[key.Public]bool{}, seen: map[key.Public]time.Time{}, told: map[key.Public]bool{}}
}

// Update takes the nodes that the home network shows now, and when accounts were heard last.
func (p *Presence) Update(online []key.Public, heard map[key.Public]time.Time, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.here)
	for _, k := range online {
		p.here[k] = true
		p.seen[k] = now.UTC()
	}
	for k, t := range heard {
		if t.After(p.seen[k]) {
			p.seen[k] = t.UTC()
		}
	}
}

// Of says whether an account is here, and when it was seen last.
func (p *Presence) Of(account key.Public) (online bool, seen time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.here[account] || p.told[account], p.seen[account]
}

// Look returns which of these accounts have come or gone since it was called last, with whether they are here now, and forgets all
// others: nodes that are nobody's are not remembered.
func (p *Presence) Look(accounts []key.Public, now time.Time) map[key.Public]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news, keep, seen := map[key.Public]bool{}, map[key.Public]bool{}, map[key.Public]time.Time{}
	for _, k := range accounts {
		at, known := p.seen[k]
		here := p.here[k] || known && now.Sub(at) < awayAfter
		if known {
			seen[k] = at
		}
		if here {
			keep[k] = true
		}
		if here != p.told[k] {
			news[k] = here
		}
	}
	p.told, p.seen = keep, seen
	return news
}
