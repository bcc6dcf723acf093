package messenger

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
)

// Buckets of the store. Keys are numbers of this box alone, so they tell nothing.
//
//	meta     name                    → numbers of our own
//	acc      account 4               → accountRecord
//	dev      device 4                → deviceRecord
//	card     device 4                → card as signed
//	auth     account 4 │ n 4         → statement of its cluster
//	so       device 4 │ stream 1     → outStream
//	oq       device 4 │ stream 1 │ number 8 → what waits for an answer
//	aq       account 4 │ n 8         → what waits for a device of the account to be known
//	si       device 4 │ stream 1     → inStream
//	ie       device 4 │ stream 1 │ number 8 → came early
//	msg      no 8                    → record
//	by       account 4 │ no 8        → nothing
//	id       hidden id 16            → no 8, expires 8
//	idd      day 4 │ hidden id 16    → nothing: when the id may be forgotten
//	todo     no 8                    → an item for a Handler
//	box      device 4 │ no 8         → an envelope kept for the device
//	files    file 8                  → fileRecord
//	contacts hidden account 16       → Contact
//	tokens   hidden secret 16        → Token
const (
	bMeta, bAcc, bDev, bCard, bAuth    = "meta", "acc", "dev", "card", "auth"
	bOut, bQueue, bWait                = "so", "oq", "aq"
	bIn, bEarly                        = "si", "ie"
	bMsg, bBy, bID, bIDDay             = "msg", "by", "id", "idd"
	bTodo, bBox, bFiles, bBook, bTok   = "todo", "box", "files", "contacts", "tokens"
	streamOrdered, streamBulk, streams = 0, 1, 2
)

// core is the messenger as a state machine: frames, words of people and time go in, what is to be done comes out as effects. It
// has no goroutine and reads no clock; the Engine's lock guards it.
//
// What it decides is staged in the ledger. Effects that promise something (an answer, a number used) are let out when what they
// rest on is on disk; so a crash at any moment looks to the other side like a loss of frames, and they are sent again.
type core struct {
	cfg     Config
	log     *slog.Logger
	self    key.Public // device
	account key.Public
	db      *ledger
	book    *Book
	rand    *rand.Rand

	at  member.Instant // of this call
	now time.Time

	accounts map[key.Public]*account
	accByNo  map[uint32]*account
	devices  map[key.Public]*device
	devByNo  map[uint32]*device
	busy     map[*device]bool // those that something is to be done for
	links    map[*link]bool
	handled  map[envelope.Kind]bool
	mute     bool // what is saved of the book now came from a sibling: it is not told

	card    *envelope.Card
	rawCard []byte

	next     numbers
	effects  []effect
	syncs    map[*os.File]bool // to be synced before what is staged is written
	urgent   bool              // something is staged that effects rest on
	lazy     bool              // something is staged that may wait
	changes  uint64
	dials    int
	errands  map[*device]map[*device]bool // by mailbox: devices that something is to be left for
	seen     map[*account]time.Time
	kin      map[key.Public]bool // devices that are said to be of our account
	box      boxState
	strange  bucketOfTokens
	handing  map[*account]bool        // accounts that have devices for what waits
	untold   map[key.Public]time.Time // strangers of whom a sibling may tell us, until when
	counters map[string]uint64
	nextScan time.Time
	files    map[uint64]*transfer
	groups   map[envelope.GroupID]*groupLog
	half     map[envelope.GroupID]*group.Roster // of which more is to come
	mateKeys map[key.Public]bool
	gate     func(from Sender, it *envelope.Item) Verdict // of texts said in groups; nil: all are taken
}

// numbers are the next ones to be given.
type numbers struct {
	Account uint32 `json:"account"`
	Device  uint32 `json:"device"`
	Message uint64 `json:"message"`
	Other   uint64 `json:"other"`
	Time    int64  `json:"time"`
	Card    uint64 `json:"card"`
}

// effect is something to be done outside. Exactly one field group is set.
type effect struct {
	link  *link // frame goes to it, or it is closed if frame is nil
	frame []byte
	dial  *device // at place, to node
	place envelope.Place
	node  key.Public
	stamp uint8     // bits of work that the envelope in frame needs first
	todo  bool      // a handler has something to do
	check *transfer // a file is complete: to be hashed and named
}

type account struct {
	number  uint32
	key     key.Public
	auth    *envelope.Authority // nil for an account that is its own device
	devices []*device
	place   envelope.Place // from a link, until cards say better
	asked   time.Time      // when its devices were sought last
	waiting bool           // aq has something for it
}

type accountRecord struct {
	Key   key.Public     `json:"key"`
	Floor int64          `json:"floor,omitempty"`
	Place envelope.Place `json:"place,omitzero"`
}

type deviceRecord struct {
	Key     key.Public         `json:"key"`
	Account uint32             `json:"account"` // 0: none yet, a mailbox or one that leaves envelopes
	Place   envelope.Place     `json:"place,omitzero"`
	Card    uint64             `json:"card,omitempty"`  // number of theirs that is held
	Acked   uint64             `json:"acked,omitempty"` // number of ours that they hold
	Mails   []envelope.Mailbox `json:"mails,omitempty"`
}

type device struct {
	number  uint32
	key     key.Public
	account *account // nil: not known
	rec     deviceRecord
	out     [streams]outStream
	in      [streams]inStream

	link    *link
	dialing bool
	fails   int
	dialAt  time.Time         // not before
	owedAt  time.Time         // when a receipt is due; zero: none is owed
	kept    int               // envelopes in our box for it
	via     map[via]time.Time // mailboxes that refused for it, until when
	paused  time.Time         // it asked for no more until then
}

// outStream numbers what goes to a device.
type outStream struct {
	Epoch uint64 `json:"e"`
	Next  uint64 `json:"n"` // number of the next item
	Floor uint64 `json:"f"` // lowest not answered; Next if none
	// Boxed is the first number that no mailbox has; those below and not answered are kept until Until at Where.
	Boxed uint64     `json:"b"`
	Until int64      `json:"u,omitempty"`
	Where key.Public `json:"w,omitzero"`
	Again int64      `json:"a,omitempty"` // unix: when the mailbox's answer has taken too long
	Tries uint8      `json:"t,omitempty"`

	cursor uint64 // first number not sent on the present link
}

// inStream is what came from a device.
type inStream struct {
	Epoch uint64   `json:"e"`
	Upto  uint64   `json:"u"`           // all up to here were taken or given up
	Owed  bool     `json:"o,omitempty"` // a receipt is owed
	Old   []uint64 `json:"x,omitempty"` // epochs before
	Last  uint64   `json:"l,omitempty"` // begin of the id of item Upto; 0: not known
	Clash bool     `json:"c,omitempty"` // a number came with another content
	early map[uint64]bool
	bytes int // of early ones
}

func newCore(cfg Config, at member.Instant, seed uint64) (*core, error) {
	c := &core{
		cfg: cfg, log: cfg.Log, self: cfg.Key.Public(), account: cfg.Account, db: newLedger(cfg.Store),
		rand: rand.New(rand.NewPCG(seed, 0x6d65737367)), counters: map[string]uint64{}, handled: map[envelope.Kind]bool{},
		links: map[*link]bool{}, kin: map[key.Public]bool{}, untold: map[key.Public]time.Time{},
	}
	if c.account.IsZero() {
		c.account = c.self
	}
	c.enter(at)
	return c, c.load()
}

// enter begins a call.
func (c *core) enter(at member.Instant) { c.at, c.now = at, at.Wall }

func (i *inStream) note(seq uint64, n int) {
	if i.early == nil {
		i.early = map[uint64]bool{}
	}
	i.early[seq] = true
	i.bytes += n
}

// epoch draws one.
func (c *core) epoch() uint64 {
	for {
		if e := c.rand.Uint64(); e != 0 {
			return e
		}
	}
}

// do adds an effect.
func (c *core) do(e effect) { c.effects = append(c.effects, e) }

// accountOf returns what is known of an account, and begins it.
func (c *core) accountOf(k key.Public) *account {
	if a := c.accounts[k]; a != nil {
		return a
	}
	a := &account{number: c.next.Account, key: k}
	c.next.Account++
	c.accounts[k], c.accByNo[a.number] = a, a
	c.saveAccount(a)
	return a
}

// deviceOf returns what is known of a device, and begins it; of may be nil.
func (c *core) deviceOf(k key.Public, of *account) *device {
	d := c.devices[k]
	if d == nil {
		d = &device{number: c.next.Device, key: k, rec: deviceRecord{Key: k}}
		c.next.Device++
		for s := range d.out {
			d.out[s] = outStream{Epoch: c.epoch(), Next: 1, Floor: 1, Boxed: 1, cursor: 1}
		}
		c.devices[k], c.devByNo[d.number] = d, d
		c.saveDevice(d)
		for s := range uint8(streams) {
			c.saveOut(d, s) // the epoch must outlive a crash: numbers were perhaps used under it
		}
		c.adopt(d)
	}
	if of != nil && d.account != of {
		if d.account != nil {
			was := d.account
			for i, x := range was.devices {
				if x == d {
					was.devices = append(was.devices[:i:i], was.devices[i+1:]...)
				}
			}
		}
		d.account, d.rec.Account = of, of.number
		of.devices = append(of.devices, d)
		c.saveDevice(d)
	}
	return d
}

// siblings are the other devices of our own account.
func (c *core) siblings() []*device {
	a := c.accounts[c.account]
	if a == nil {
		return nil
	}
	var all []*device
	for _, d := range a.devices {
		if d.key != c.self && c.speaks(a, d.key) {
			all = append(all, d)
		}
	}
	return all
}

// unixMilli gives no time twice: it is what tells two equal texts apart.
func (c *core) unixMilli() int64 {
	c.next.Time = max(c.next.Time+1, c.now.UnixMilli())
	return c.next.Time
}

func (c *core) count(what string) { c.counters[what]++ }

// change tells those who wait that something is to be seen.
func (c *core) change() { c.changes++ }

func (c *core) number() uint64 {
	n := c.next.Other
	c.next.Other++
	c.saveNumbers()
	return n
}
