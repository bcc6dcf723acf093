package vpn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

const (
	// maxCandidates bounds what one word auto adds to the list.
	maxCandidates = 8
	// avoidFirst and avoidMost are how long a server that failed stands back; one that refused stands back for the most.
	avoidFirst = 2 * time.Second
	avoidMost  = time.Minute
	// preferEvery is how often a better server is looked at, and preferTimes how often it must answer in a row: going back
	// breaks connections at an exit, so it must be there to stay.
	preferEvery = 15 * time.Second
	preferTimes = 2
	findWithin  = 20 * time.Second
)

// candidate is a server that may be used; rank 0 is the best.
type candidate struct {
	key  key.Public
	rank int
}

// record is what is remembered of a candidate that failed.
type record struct {
	until   time.Time
	wait    time.Duration
	refused bool
}

// choice decides which server is next: the first of the list that has not just failed.
type choice struct {
	words []string // NODE or auto, the preferred first
	list  []candidate
	bad   map[key.Public]record

	looked time.Time // at a better one
	good   int       // times in a row that it answered
}

// next looks the list up anew and gives the server to ask.
func (c *choice) next(ctx context.Context, node Node) (candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	var list []candidate
	var errs []error
	add := func(k key.Public) {
		if !slices.ContainsFunc(list, func(o candidate) bool { return o.key == k }) && k != node.Self().Key {
			list = append(list, candidate{k, len(list)})
		}
	}
	for _, word := range c.words {
		if word == autoServer {
			found, err := nearest(ctx, node)
			if err != nil {
				errs = append(errs, err)
			}
			for _, s := range found {
				add(s.Key)
			}
			continue
		}
		k, err := node.Resolve(ctx, word)
		if err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", word, err))
			continue
		}
		add(k)
	}
	if len(list) == 0 {
		if err := errors.Join(errs...); err != nil {
			return candidate{}, err
		}
		return candidate{}, ErrNoServer
	}
	c.list = list
	return c.pick(time.Now()), nil
}

// pick gives the first that does not stand back, or else the one that stands back the shortest.
func (c *choice) pick(now time.Time) candidate {
	best := c.list[0]
	for _, o := range c.list {
		until := c.bad[o.key].until
		if !until.After(now) {
			return o
		}
		if until.Before(c.bad[best.key].until) {
			best = o
		}
	}
	return best
}

// failed makes a server stand back. was is zero when there was no lease, and asked failed.
func (c *choice) failed(was, asked candidate, err error) {
	k := was.key
	if k == (key.Public{}) {
		k = asked.key
	}
	if errors.Is(err, errForced) {
		return
	}
	if c.bad == nil || len(c.bad) > 4*maxCandidates {
		c.bad = map[key.Public]record{}
	}
	r := c.bad[k]
	r.wait = min(max(2*r.wait, avoidFirst), avoidMost)
	if r.refused = final(err); r.refused {
		r.wait = avoidMost
	}
	r.until = time.Now().Add(r.wait)
	c.bad[k] = r
	c.good, c.looked = 0, time.Now()
}

// proved forgets what was remembered against a server.
func (c *choice) proved(o candidate) {
	delete(c.bad, o.key)
	c.good, c.looked = 0, time.Now()
}

// several reports whether there is more than one server to choose from.
func (c *choice) several() bool { return len(c.list) > 1 }

// another reports whether a server waits that has not just failed.
func (c *choice) another() bool {
	now := time.Now()
	return c.several() && !c.bad[c.pick(now).key].until.After(now)
}

// allRefused reports whether every server has said no, and not only failed.
func (c *choice) allRefused() bool {
	for _, o := range c.list {
		if !c.bad[o.key].refused {
			return false
		}
	}
	return true
}

// better gives a lease of a server that stands before the one in use and has answered for a while. The list is by
// preference where servers were named; among those of auto the nearest one of the moment is no reason to move.
func (c *client) better(ctx context.Context, used candidate) (lease, bool) {
	if used.rank == 0 || c.c.Stay || c.words[0] == autoServer || time.Since(c.looked) < preferEvery {
		return lease{}, false
	}
	c.looked = time.Now()
	best := c.list[0]
	look, cancel := context.WithTimeout(ctx, hastyLook)
	_, err := c.a.node.Ping(look, best.key)
	cancel()
	if err != nil {
		c.good = 0
		return lease{}, false
	}
	if c.good++; c.good < preferTimes {
		return lease{}, false
	}
	l, err := c.ask(ctx, best, hastyDial)
	if err != nil {
		c.failed(best, best, err)
		return lease{}, false
	}
	return l, true
}

// nearest lists the servers of the mesh that are on-line, by round trip.
func nearest(ctx context.Context, node Node) ([]app.Service, error) {
	list, err := node.Services(ctx, Service)
	if err != nil {
		return nil, fmt.Errorf("look for servers: %w", err)
	}
	list = slices.DeleteFunc(list, func(s app.Service) bool { return !s.Online })
	sort.SliceStable(list, func(i, j int) bool { return Nearer(list[i], list[j]) < 0 })
	return list[:min(len(list), maxCandidates)], nil
}

// Nearer orders services by round trip, those without one last.
func Nearer(a, b app.Service) int {
	switch {
	case a.RTT == b.RTT:
		return 0
	case a.RTT != 0 && (b.RTT == 0 || a.RTT < b.RTT):
		return -1
	}
	return 1
}

// errForced ends a session for `vpn status --leak-check`, which wants to see a reconnection.
var errForced = signal.Errorf(signal.ErrBusy, "reconnect was asked for")
