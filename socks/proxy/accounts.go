package proxy

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"skywire/mesh/key"
)

// maxAccounts bounds the keys of which an exit keeps figures; those with something open are kept beyond it, which the
// limits on what is open bound.
const maxAccounts = 512

// newBurst is how many seconds' worth of new connections may come at once: a page opens its own within one.
const newBurst = 4

// accounts says what each client uses, and keeps it within limits.
type accounts struct {
	connections, perKey     int
	associations, perKeyUDP int
	newPerSecond            int // of one key; 0: no limit
	now                     func() time.Time

	mu    sync.Mutex // guards the fields below
	per   map[key.Public]*account
	conns int
	udp   int
}

// account is one client's.
type account struct {
	open, udp         int
	fresh             bucket // new connections
	up, down          bucket // bytes of datagrams; those of connections are the node's to count
	accepted, refused uint64
	sent, received    uint64 // of what has ended, and of datagrams
}

func newAccounts(c ExitConfig) *accounts {
	return &accounts{
		connections: c.Connections, perKey: c.PerKey, associations: c.Associations, perKeyUDP: c.AssociationsPerKey,
		newPerSecond: c.NewPerKey, now: time.Now, per: make(map[key.Public]*account),
	}
}

// open counts a connection, or an association, of k, unless a limit is reached.
func (a *accounts) open(k key.Public, udp bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.ofLocked(k)
	err := a.roomLocked(c, udp)
	switch {
	case err != nil:
		c.refused++
	case udp:
		c.udp++
		a.udp++
	default:
		c.open++
		a.conns++
	}
	return err
}

func (a *accounts) roomLocked(c *account, udp bool) error {
	all, most, own, ownMost, what := a.conns, a.connections, c.open, a.perKey, ErrBusy
	if udp {
		all, most, own, ownMost, what = a.udp, a.associations, c.udp, a.perKeyUDP, ErrManyAssociations
	}
	switch {
	case all >= most:
		return fmt.Errorf("%w at this exit (%d)", what, most)
	case own >= ownMost:
		return fmt.Errorf("%w of one client at this exit (%d)", what, ownMost)
	case !a.spendLocked(c):
		return fmt.Errorf("%w of one client at this exit in a second (%d)", what, a.newPerSecond)
	}
	return nil
}

// spendLocked takes one new connection out of c's bucket.
func (a *accounts) spendLocked(c *account) bool {
	if a.newPerSecond == 0 {
		return true
	}
	rate := float64(a.newPerSecond)
	return c.fresh.take(a.now(), 1, rate, newBurst*rate)
}

// spend takes a datagram's bytes out of k's bucket. k has something open.
func (a *accounts) spend(k key.Public, bytes int, up bool, rate uint64) bool {
	if rate == 0 {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b := &a.per[k].down
	if up {
		b = &a.per[k].up
	}
	return b.take(a.now(), float64(bytes), float64(rate), max(float64(rate)/burstPart, leastBurst))
}

// A client's bytes may come in bursts of a quarter of a second, and of one large datagram at least.
const (
	burstPart  = 4
	leastBurst = 64 << 10
)

// bucket is a token bucket; the zero value is full.
type bucket struct {
	tokens float64
	filled time.Time
}

// take takes n tokens, if they are there.
func (b *bucket) take(now time.Time, n, rate, burst float64) bool {
	if b.filled.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(b.tokens+now.Sub(b.filled).Seconds()*rate, burst)
	}
	b.filled = now
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// ofLocked finds k's account or makes one, in place of one that has nothing open if there are too many.
func (a *accounts) ofLocked(k key.Public) *account {
	c := a.per[k]
	if c != nil {
		return c
	}
	if len(a.per) >= maxAccounts {
		for old, o := range a.per {
			if o.open+o.udp == 0 {
				delete(a.per, old)
				break
			}
		}
	}
	c = &account{}
	a.per[k] = c
	return c
}

// close gives back what open took.
func (a *accounts) close(k key.Public, udp bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.per[k]; udp {
		c.udp--
		a.udp--
	} else {
		c.open--
		a.conns--
	}
}

// note adds figures; k has something open.
func (a *accounts) note(k key.Public, accepted, refused, sent, received uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.per[k]
	c.accepted += accepted
	c.refused += refused
	c.sent += sent
	c.received += received
}

// now is what is open, and how many clients have something open.
func (a *accounts) use() (conns, udp, clients int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.per {
		if c.open+c.udp > 0 {
			clients++
		}
	}
	return a.conns, a.udp, clients
}

// maxReports is how many clients a status lists: it goes to the node as one message.
const maxReports = 64

// ClientReport is one client in an exit's status.
type ClientReport struct {
	Key          string `json:"key"`
	Connections  int    `json:"connections"`  // now
	Associations int    `json:"associations"` // now
	Accepted     uint64 `json:"accepted"`
	Refused      uint64 `json:"refused"`
	Sent         uint64 `json:"tx_bytes"` // to the client, of connections that ended and of datagrams
	Received     uint64 `json:"rx_bytes"`
}

// report lists the clients, those with most open first.
func (a *accounts) report() []ClientReport {
	a.mu.Lock()
	all := make([]ClientReport, 0, len(a.per))
	for k, c := range a.per {
		all = append(all, ClientReport{
			Key: k.String(), Connections: c.open, Associations: c.udp,
			Accepted: c.accepted, Refused: c.refused, Sent: c.sent, Received: c.received,
		})
	}
	a.mu.Unlock()
	sort.Slice(all, func(i, j int) bool {
		x, y := &all[i], &all[j]
		if m, n := x.Connections+x.Associations, y.Connections+y.Associations; m != n {
			return m > n
		}
		if x.Accepted != y.Accepted {
			return x.Accepted > y.Accepted
		}
		return x.Key < y.Key
	})
	return all[:min(len(all), maxReports)]
}
