package vpn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"skywire/mesh/key"
	"skywire/tun/netcfg"
)

// Limit is what each client may use. The kernel holds it, packet by packet; see netcfg.Client.
type Limit struct {
	Up, Down uint64 // bytes a second from and to the client; 0: no limit
	Quota    uint64 // bytes in a period, both ways together; 0: none
	Period   Period
}

// Period is how long a quota lasts.
type Period string

// Periods. They begin at midnight UTC, weeks on Mondays.
const (
	Ever  Period = ""
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month"
)

func (l Limit) validate() error {
	switch l.Period {
	case Ever, Day, Week, Month:
		return nil
	}
	return fmt.Errorf("quota of %q: want a day, week or month", l.Period)
}

// start is when the period began that t lies in.
func (p Period) start(t time.Time) time.Time {
	t = t.UTC()
	y, m, d := t.Date()
	switch p {
	case Day:
	case Week:
		d -= (int(t.Weekday()) + 6) % 7
	case Month:
		d = 1
	default:
		return time.Time{}
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// next is when the period ends that began at start; zero: never.
func (p Period) next(start time.Time) time.Time {
	switch p {
	case Day:
		return start.AddDate(0, 0, 1)
	case Week:
		return start.AddDate(0, 0, 7)
	case Month:
		return start.AddDate(0, 1, 0)
	}
	return time.Time{}
}

// How often clients' counters are read, and the books written: flash wears out, and a power cut forgives a minute.
const (
	countEvery = 5 * time.Second
	booksEvery = time.Minute
)

// books say what each client has used of its quota. They outlive the process as STATE/vpn-usage.json, which is replaced
// whole. They are not safe for concurrent use.
type books struct {
	path  string
	limit Limit
	file  bookFile
	dirty bool
	saved time.Time
}

// bookFile is STATE/vpn-usage.json.
type bookFile struct {
	Period Period                      `json:"period"`
	Start  time.Time                   `json:"start"`
	Used   map[key.Public]netcfg.Usage `json:"used"`
}

// openBooks reads the file, or begins anew. Without a quota nothing is read or written.
func openBooks(path string, l Limit, now time.Time) (*books, error) {
	b := &books{path: path, limit: l, saved: now}
	b.file.Start = l.Period.start(now)
	if l.Quota > 0 {
		raw, err := os.ReadFile(path)
		var f bookFile
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read usage: %w", err)
		case json.Unmarshal(raw, &f) != nil:
			return nil, fmt.Errorf("usage in %s is damaged: delete the file, all quotas begin anew then", path)
		case f.Period == l.Period && len(f.Used) <= maxLeases:
			b.file = f
		}
	}
	if b.file.Used == nil {
		b.file.Used = map[key.Public]netcfg.Usage{}
	}
	b.file.Period = l.Period
	b.turn(now)
	return b, nil
}

// turn begins a new period if it is time. A clock that went back, as that of a router without one does at each start, is no
// new period.
func (b *books) turn(now time.Time) bool {
	start := b.limit.Period.start(now)
	if !start.After(b.file.Start) {
		return false
	}
	b.file.Start, b.file.Used, b.dirty = start, map[key.Public]netcfg.Usage{}, true
	return true
}

// note takes what the kernel counted of a client. That counts what it refused beyond the quota as well.
func (b *books) note(k key.Public, u netcfg.Usage) {
	if most := b.limit.Quota; most > 0 && u.Up+u.Down > most {
		over := u.Up + u.Down - most
		part := min(over, u.Up)
		u.Up, u.Down = u.Up-part, u.Down-(over-part)
	}
	if b.file.Used[k] != u && (len(b.file.Used) < maxLeases || b.file.Used[k] != netcfg.Usage{}) {
		b.file.Used[k], b.dirty = u, true
	}
}

// left is what a client has left of its quota; ok is false where there is none.
func (b *books) left(k key.Public) (bytes uint64, ok bool) {
	u := b.file.Used[k]
	return b.limit.Quota - min(b.limit.Quota, u.Up+u.Down), b.limit.Quota > 0
}

// save writes the books if they changed and the last time is long enough ago, or at once if that is asked.
func (b *books) save(now time.Time, atOnce bool) error {
	if b.limit.Quota == 0 || !b.dirty || !atOnce && now.Sub(b.saved) < booksEvery {
		return nil
	}
	raw, err := json.Marshal(b.file)
	if err == nil {
		err = replaceFile(b.path, raw)
	}
	if err != nil {
		return fmt.Errorf("write usage %s: %w", b.path, err)
	}
	b.dirty, b.saved = false, now
	return nil
}

// replaceFile replaces a file; after a power cut there is the old one or the new one.
func replaceFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".vpn-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// count reads the kernel's counters into the books. The caller holds the server's mu.
func (s *server) count() error {
	a := s.a
	a.mu.Lock()
	used, err := a.net.Usage()
	a.mu.Unlock()
	if err != nil {
		return err
	}
	for k, m := range s.clients {
		u, ok := used[m.ipv4]
		if !ok {
			continue
		}
		seconds := time.Since(m.countedAt).Seconds()
		if !m.countedAt.IsZero() && seconds > 0 && u.Up >= m.used.Up && u.Down >= m.used.Down {
			m.upRate, m.downRate = float64(u.Up-m.used.Up)*8/seconds, float64(u.Down-m.used.Down)*8/seconds
		}
		m.used, m.countedAt = u, time.Now()
		s.books.note(k, u)
	}
	return nil
}

// used is what the books say of a client, and without a quota, what the last lease of this run left.
func (s *server) used(k key.Public) netcfg.Usage { return s.books.file.Used[k] }

// netClient is what the kernel is to hold a client to.
func (s *server) netClient(k key.Public, m *member) netcfg.Client {
	c := netcfg.Client{
		IPv4: m.ipv4, Exit: m.exit(), Subnets: m.grant.subnets, Peers: m.grant.peers,
		Up: s.c.Limit.Up, Down: s.c.Limit.Down, Quota: s.c.Limit.Quota, Used: s.used(k),
	}
	if m.ipv6 != (netip.Addr{}) {
		c.IPv6 = m.ipv6
	}
	return c
}
