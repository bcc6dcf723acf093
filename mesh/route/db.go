package route

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
)

// Bounds of the database (mesh/wire/SPEC.md, records). They keep a stranger with a thousand fresh keys from taking the
// memory or the CPU of a router, and let a new node learn a mesh of a thousand from its first neighbour at once.
const (
	DefaultLife       = 2 * time.Hour    // unheard for so long, a record goes
	DefaultResign     = 30 * time.Minute // a node signs anew at least so often
	DefaultMaxRecords = 4096
	DefaultMaxBytes   = 8 << 20

	originRate, originBurst = 1.0, 5                 // accepted updates a second from one origin
	verifyRate, verifyBurst = 50.0, 1024             // signatures checked a second for one neighbour
	newRate, newBurst       = 100.0 / 3600, 1024     // unknown origins learnt from one neighbour
	maxSources              = 1024                   // neighbours with a quota of their own
	graves                  = 2                      // dropped records are remembered for so many lives
	overheadBytes           = 256                    // of a record in memory, beside its bytes, twice
	signGap                 = 200 * time.Millisecond // between two own records, and
	signBurst               = 3                      // so many before originRate holds: links come up together
	minorGap                = 5 * time.Minute        // the same if only measures drifted
	twinGap                 = time.Minute            // the same while another box runs our key
	settle                  = time.Minute            // after our first record, for what we said in earlier boots
	overtakes               = 3                      // by one foreign boot within settle: it is alive
	twinMemory              = 10 * time.Minute       // without being overtaken: the other box is gone
)

// DBConfig says for whom a DB is kept. The zero values of the bounds mean their defaults.
type DBConfig struct {
	Network    key.NetworkID
	Self       key.Public // the zero key if the holder has no record of its own
	Boot       uint64     // random, of this start
	Number     uint64     // highest number this node is known to have used, from its store
	Life       time.Duration
	Resign     time.Duration
	MaxRecords int
	MaxBytes   int
	Member     func(key.Public) bool // members are never evicted by others; nil: nobody is
	// Parse verifies a record of a neighbour and returns the bytes to keep, equal to raw; nil means ParseRecord and a copy.
	// Simulations of many nodes in one process remember in it what they verified, and keep it once.
	Parse func(raw []byte, id key.NetworkID) (r *Record, kept []byte, err error)
}

// DB holds the newest record of every node. One goroutine uses it; what it returns is immutable and may be kept.
type DB struct {
	c       DBConfig
	entries map[key.Public]*Entry
	sources map[key.Public]*source
	buried  map[key.Public]grave
	bytes   int
	sum     uint64
	own     own
	stats   Stats
}

// Entry is a record as the database holds it.
type Entry struct {
	*Record
	Raw  []byte        // as signed; not to be changed
	From key.Public    // the neighbour that brought it
	Born time.Duration // when it was signed, as far as known: arrival minus the age it came with

	updates bucket
	member  bool
}

// Age is how long ago the record was signed, as far as known. It goes along when the record is passed on.
func (e *Entry) Age(now time.Duration) time.Duration { return max(now-e.Born, 0) }

// StoredAge guesses the age of a record that comes from a store, where it lay for an unknown time: what its maker's clock
// and ours make of it if that is possible, else half of its life. Without it, records of dead nodes would start a new
// life with every restart.
func StoredAge(raw []byte, wall time.Time, life time.Duration) time.Duration {
	if life <= 0 {
		life = DefaultLife
	}
	if len(raw) >= headerLen {
		made := int64(binary.BigEndian.Uint64(raw[49:]))
		if age := wall.Sub(time.Unix(made, 0)); made > 0 && age >= 0 && age < life {
			return age
		}
	}
	return life / 2
}

type source struct {
	verifies, origins bucket
	used              time.Duration
}

type grave struct {
	number uint64
	until  time.Duration
}

// Stats counts what the database did since New.
type Stats struct {
	Accepted, Known, Stale, Conflicts, Bad, Busy, Full, Evicted, Expired, Overtaken, Twins uint64
}

// Outcome is what became of a record handed to Put.
type Outcome uint8

// Outcomes. Only Added and Updated changed the database.
const (
	Added     Outcome = iota + 1 // first record of this node
	Updated                      // newer than the one held
	Known                        // the very bytes held
	Stale                        // older than the one held (Verdict.Newer has it), or than one that has aged out
	Conflict                     // the number held, other bytes: the first stays
	Bad                          // malformed, or not signed by its key
	Busy                         // over a rate or quota; a later sync brings it again
	Full                         // no room, and nothing that had to give way
	Overtaken                    // our own key with a higher number, from an earlier start: sign anew
	Twin                         // our own key, signed by another box that runs now: alarm
)

var outcomeNames = [...]string{"", "added", "updated", "known", "stale", "conflict", "bad", "busy", "full", "overtaken", "twin"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// Changes says what differs between two records of a node.
type Changes uint8

// Bits of Changes.
const (
	LinksChanged Changes = 1 << iota
	ServicesChanged
	AddrsChanged
	NameChanged // name, version, IPv4 or items unknown
	MeasuresChanged
)

// Verdict is the answer of Put.
type Verdict struct {
	Outcome Outcome
	Entry   *Entry       // what is held now, if Outcome is Added or Updated
	Changes Changes      // against the record held before; everything present if Added
	Newer   *Entry       // Stale: what to send back to the neighbour
	Gone    []key.Public // records that made room
	Err     error        // Bad: why
}

// Flood tells whether the record is news to pass on to the other neighbours.
func (v Verdict) Flood() bool { return v.Outcome == Added || v.Outcome == Updated }

// Graph tells whether paths may have changed.
func (v Verdict) Graph() bool {
	return v.Changes&(LinksChanged|MeasuresChanged) != 0 || len(v.Gone) > 0
}

// NewDB returns an empty database.
func NewDB(c DBConfig) *DB {
	setDefault(&c.Life, DefaultLife)
	setDefault(&c.Resign, DefaultResign)
	setDefault(&c.MaxRecords, DefaultMaxRecords)
	setDefault(&c.MaxBytes, DefaultMaxBytes)
	return &DB{
		c: c, own: own{floor: c.Number},
		entries: make(map[key.Public]*Entry),
		sources: make(map[key.Public]*source),
		buried:  make(map[key.Public]grave),
	}
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Put offers a record that arrived from a neighbour. raw is copied. A from equal to Self means the node's own store and
// is under no quota.
func (d *DB) Put(now time.Duration, raw []byte, from key.Public) Verdict {
	return d.PutAged(now, raw, from, 0)
}

// PutAged is Put for a record that came with a statement of its age. The age is not signed: it only ends records of dead
// nodes sooner, while the graves of aged records end those of neighbours that lie about it.
func (d *DB) PutAged(now time.Duration, raw []byte, from key.Public, age time.Duration) Verdict {
	k, number, err := Peek(raw)
	if err != nil {
		d.stats.Bad++
		return Verdict{Outcome: Bad, Err: err}
	}
	if k == d.c.Self && k != (key.Public{}) {
		return d.putOwn(now, raw, from)
	}
	e := d.entries[k]
	if v := d.notNews(now, e, k, number, raw, age); v.Outcome != 0 {
		return v
	}
	src := d.source(now, from)
	if !d.affords(now, src, e) {
		d.stats.Busy++
		return Verdict{Outcome: Busy}
	}
	r, kept, err := d.parse(now, src, raw, e != nil)
	if err != nil {
		d.stats.Bad++
		return Verdict{Outcome: Bad, Err: err}
	}
	fresh := &Entry{Record: r, Raw: kept, From: from, Born: now - max(age, 0), member: d.member(k)}
	gone, ok := d.makeRoom(now, e, fresh)
	if !ok {
		d.stats.Full++
		return Verdict{Outcome: Full, Gone: gone}
	}
	v := Verdict{Outcome: Added, Entry: fresh, Gone: gone, Changes: compare(&Record{}, r)}
	if e != nil {
		v.Outcome, v.Changes = Updated, compare(e.Record, r)
		fresh.updates = e.updates
		d.remove(k)
	} else if src != nil {
		src.origins.take(now, newRate, newBurst)
	}
	fresh.updates.take(now, originRate, originBurst)
	d.insert(fresh)
	delete(d.buried, k)
	d.stats.Accepted++
	return v
}

// notNews answers what needs no signature check; its Outcome is 0 if the record may be news.
func (d *DB) notNews(now time.Duration, e *Entry, k key.Public, number uint64, raw []byte, age time.Duration) Verdict {
	switch g, dead := d.buried[k]; {
	case e != nil && number < e.Number:
		d.stats.Stale++
		return Verdict{Outcome: Stale, Newer: e}
	case e != nil && number == e.Number && bytes.Equal(raw, e.Raw):
		d.stats.Known++
		return Verdict{Outcome: Known}
	case e != nil && number == e.Number:
		d.stats.Conflicts++
		return Verdict{Outcome: Conflict}
	case age >= d.c.Life || dead && now < g.until && number <= g.number:
		d.stats.Stale++
		return Verdict{Outcome: Stale}
	}
	return Verdict{}
}

// affords takes nothing but looks: only a verified record uses up the quota of its origin, else anyone could use it up.
func (d *DB) affords(now time.Duration, src *source, e *Entry) bool {
	if src == nil {
		return true
	}
	if src.verifies.left(now, verifyRate, verifyBurst) < 1 {
		return false
	}
	if e != nil {
		return e.updates.left(now, originRate, originBurst) >= 1
	}
	return src.origins.left(now, newRate, newBurst) >= 1
}

func (d *DB) parse(now time.Duration, src *source, raw []byte, known bool) (r *Record, kept []byte, err error) {
	if src != nil {
		src.verifies.take(now, verifyRate, verifyBurst)
	}
	if d.c.Parse != nil {
		return d.c.Parse(raw, d.c.Network)
	}
	r, err = parse(raw, d.c.Network, known)
	return r, bytes.Clone(raw), err
}

// source returns the quota of a neighbour, nil for the node's own store. If the table is full the one used longest ago
// gives way.
func (d *DB) source(now time.Duration, from key.Public) *source {
	if from == d.c.Self {
		return nil
	}
	s := d.sources[from]
	if s == nil {
		if len(d.sources) >= maxSources {
			var oldest key.Public
			found := false
			for k, s := range d.sources {
				if !found || s.used < d.sources[oldest].used {
					oldest, found = k, true
				}
			}
			delete(d.sources, oldest)
		}
		s = &source{}
		d.sources[from] = s
	}
	s.used = now
	return s
}

func (d *DB) member(k key.Public) bool { return d.c.Member != nil && d.c.Member(k) }

func cost(e *Entry) int { return 2*len(e.Raw) + overheadBytes }

// makeRoom evicts until fresh fits. A non-member gives way first: the oldest record of the neighbour that brought most
// of them; for a newcomer that is no member only if that neighbour holds more than its own would with it.
func (d *DB) makeRoom(now time.Duration, old, fresh *Entry) (gone []key.Public, ok bool) {
	for {
		n, size := len(d.entries)+1, d.bytes+cost(fresh)
		if old != nil {
			n, size = n-1, size-cost(old)
		}
		if n <= d.c.MaxRecords && size <= d.c.MaxBytes {
			return gone, true
		}
		v := d.victim(old, fresh)
		if v == nil {
			return gone, false
		}
		d.bury(now, v)
		d.remove(v.Key)
		d.stats.Evicted++
		gone = append(gone, v.Key)
	}
}

func (d *DB) victim(old, fresh *Entry) *Entry {
	shares := make(map[key.Public]int)
	for _, e := range d.entries {
		if !e.member && e != old && e.Key != d.c.Self && e.From != d.c.Self {
			shares[e.From]++
		}
	}
	var v *Entry
	for _, e := range d.entries {
		if e.member || e == old || e.Key == d.c.Self || e.From == d.c.Self {
			continue
		}
		if !fresh.member && shares[e.From] <= shares[fresh.From]+1 {
			continue
		}
		if v == nil || shares[e.From] > shares[v.From] ||
			shares[e.From] == shares[v.From] && (e.Born < v.Born || e.Born == v.Born && e.Key.Less(v.Key)) {
			v = e
		}
	}
	return v
}

func (d *DB) insert(e *Entry) {
	d.entries[e.Key] = e
	d.bytes += cost(e)
	d.sum ^= sumOf(e.Key, e.Number)
}

func (d *DB) remove(k key.Public) {
	if e := d.entries[k]; e != nil {
		delete(d.entries, k)
		d.bytes -= cost(e)
		d.sum ^= sumOf(e.Key, e.Number)
	}
}

func sumOf(k key.Public, number uint64) uint64 {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(k[:], number))
	return binary.BigEndian.Uint64(h[:])
}

// bury remembers the number of a record that goes, so that a neighbour that still holds it can't bring it back for ever.
// There are at most as many graves as records.
func (d *DB) bury(now time.Duration, e *Entry) {
	if len(d.buried) >= d.c.MaxRecords {
		for k, g := range d.buried {
			if g.until <= now {
				delete(d.buried, k)
			}
		}
	}
	if len(d.buried) < d.c.MaxRecords {
		d.buried[e.Key] = grave{number: e.Number, until: now + graves*d.c.Life}
	}
}

// Expire drops what was unheard for its life and returns whose records went. Call it a few times a minute.
func (d *DB) Expire(now time.Duration) (gone []key.Public) {
	for k, e := range d.entries {
		if k != d.c.Self && e.Age(now) >= d.c.Life {
			d.bury(now, e)
			d.remove(k)
			d.stats.Expired++
			gone = append(gone, k)
		}
	}
	for k, g := range d.buried {
		if g.until <= now {
			delete(d.buried, k)
		}
	}
	sort.Slice(gone, func(i, j int) bool { return order(gone[i], gone[j]) < 0 })
	return gone
}

// Forget drops the record of one node at once: its owner was revoked.
func (d *DB) Forget(k key.Public) { d.remove(k) }

// Get returns the entry of a node, nil if there is none.
func (d *DB) Get(k key.Public) *Entry { return d.entries[k] }

// Len is how many records are held.
func (d *DB) Len() int { return len(d.entries) }

// Stats returns the counters.
func (d *DB) Stats() Stats { return d.stats }

// Entries returns all entries in order of their keys, the own one among them.
func (d *DB) Entries() []*Entry {
	all := make([]*Entry, 0, len(d.entries))
	for _, e := range d.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Entry) int { return order(a.Key, b.Key) })
	return all
}

// All returns all records in order of their keys: what NewGraph takes.
func (d *DB) All() []*Record {
	entries := d.Entries()
	all := make([]*Record, len(entries))
	for i, e := range entries {
		all[i] = e.Record
	}
	return all
}
