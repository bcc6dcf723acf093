package peering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

const (
	// Service is the name, type and app of the gateway at its node; it is open to guests.
	Service = "peering"

	maxGuests    = 32  // visitors that have shown who they are
	guestStreams = 256 // of one visitor
	guestIdle    = 15 * time.Minute
	vouchFor     = 30 * time.Minute
	houseEvery   = 30 * time.Second
	pullEvery    = 10 * time.Minute
	learnEvery   = 5 * time.Second
	stepTimeout  = 10 * time.Second
	passLife     = 24 * time.Hour
)

// Config of a Gateway.
type Config struct {
	Run    string // directory of the node beside
	State  string // directory of the book
	Visits *Visits
	Node   *key.Private // the identity of the node beside: it signs for its visitors
	// Admin returns the key that signs for the cluster, an error where this box has none.
	Admin func() (*key.Private, error)
	// Send brings a record or an end to the other cluster by another way too, such as the messenger; may be nil.
	Send func(ctx context.Context, cluster key.Public, raw []byte)
	// Note writes down for administrators that something happened with a peered cluster; may be nil.
	Note func(cluster key.Public, name, what string)
	Log  *slog.Logger
}

// Gateway enforces the peerings of the node's cluster on this box: to visitors of peered clusters it opens what was
// exported and nothing else, and what they export it registers at the node.
//
// Lock order: mu, then the book's; no I/O with mu held.
type Gateway struct {
	c     Config
	began time.Time
	news  chan struct{} // capacity 1: the book changed

	mu     sync.Mutex // guards the fields below
	home   *app.Client
	book   *Book // nil: the node is in no cluster, or not asked yet
	own    ownCluster
	guests map[key.Public]*guest
	flows  int
	tokens float64 // for calls of who is not known
	filled time.Time
	ties   map[Pair]*tie
	told   map[word]uint64 // numbers of what the other side has
	again  map[word]retry  // when it is told again
}

// ownCluster is what the node knows of its own cluster.
type ownCluster struct {
	cluster key.Public
	state   *member.State // the lists, without certificates
	list    []byte
	cert    []byte
	revoked [][]byte
}

// guest is a visitor of a peered cluster.
type guest struct {
	cluster key.Public
	node    key.Public // whose visitor it is
	pair    Pair
	until   int64
	used    time.Time
	streams int
	watch   chan []byte // news for it; capacity 4
	paces   map[paceKey]*pace
}

// New makes a Gateway; Run runs it.
func New(c Config) (*Gateway, error) {
	if c.Run == "" || c.State == "" || c.Visits == nil || c.Node == nil {
		return nil, errors.New("peering: run and state directories, visits and the node's key are needed")
	}
	if c.Admin == nil {
		c.Admin = func() (*key.Private, error) { return nil, errNoAdmin }
	}
	if c.Note == nil {
		c.Note = func(key.Public, string, string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{
		c: c, began: time.Now(), news: make(chan struct{}, 1), guests: map[key.Public]*guest{},
		ties: map[Pair]*tie{}, told: map[word]uint64{}, again: map[word]retry{},
	}, nil
}

func (g *Gateway) at() member.Instant {
	return member.Instant{Up: time.Since(g.began), Wall: time.Now()}
}

// now is the time by which peerings end, in unix seconds: the box's clock, unless what the cluster signed is later.
func (g *Gateway) now() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own.state == nil {
		return time.Now().Unix()
	}
	return g.own.state.Now(g.at()).Unix()
}

// Run serves until ctx ends. A node that belongs to no cluster has nothing to peer; it is asked again.
func (g *Gateway) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := g.session(ctx); err != nil && ctx.Err() == nil {
			g.c.Log.Debug("no peering", "err", err)
			wait(ctx, learnEvery)
		}
	}
	return nil
}

// session is the work beside one node, of one cluster.
func (g *Gateway) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	home, err := app.Dial(ctx, g.c.Run)
	if err != nil {
		return err
	}
	defer home.Close()
	network := home.Self().Network
	if network == key.Open() {
		return errNoCluster
	}
	if err := g.learn(ctx, home); err != nil {
		return err
	}
	if err := home.Register(ctx, app.Registration{Name: Service, Kind: Service, Services: []app.Service{
		{Name: Service, Type: Service, Allow: []string{app.Guests}, Packets: true},
	}}); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	defer g.untie()
	parts.Go(func() { _ = home.Run(ctx) })
	parts.Go(func() { g.accept(ctx, home) })
	parts.Go(func() { g.followMembers(ctx, home) })
	parts.Go(func() { g.spread(ctx, home) })
	g.kick()
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	for {
		changed := home.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if home.Self().Network != network {
				return nil // of another cluster now
			}
		case <-tick.C:
			g.keepHouse(ctx, home)
		}
	}
}

var errNoCluster = signal.Errorf(signal.ErrUsage, "this node belongs to no cluster: only clusters can be peered (skywire node join INVITE, or skywire manager cluster create)")

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// learn asks the node about its cluster: the lists, and the node's own certificate.
func (g *Gateway) learn(ctx context.Context, home *app.Client) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var own ownCluster
	var ask struct {
		After []byte `json:"after,omitempty"`
	}
	at := g.at()
	for own.cert == nil {
		var page struct {
			Cluster    key.Public `json:"cluster"`
			Statements [][]byte   `json:"statements"`
			Next       []byte     `json:"next"`
		}
		if err := home.Call(ctx, "member.list", ask, &page); err != nil {
			return err
		}
		if own.state == nil {
			own.cluster, own.state = page.Cluster, member.New(member.Config{Cluster: page.Cluster}, at)
		}
		for _, raw := range page.Statements {
			own.take(at, raw, home.Self().Key)
		}
		if ask.After = page.Next; len(page.Next) == 0 || len(page.Statements) == 0 {
			break
		}
	}
	if own.cluster.IsZero() || own.list == nil {
		return errNoCluster
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.book == nil || g.own.cluster != own.cluster {
		book, err := OpenBook(g.c.State, own.cluster, g.at)
		if err != nil {
			return err
		}
		g.book = book
	}
	admins, _ := own.state.Admins()
	g.book.SetAdmins(admins)
	g.home, g.own = home, own
	return nil
}

func (o *ownCluster) take(at member.Instant, raw []byte, self key.Public) {
	if len(raw) == 0 {
		return
	}
	switch member.Kind(raw[0]) {
	case member.KindAdmins:
		o.list = raw
	case member.KindRevocation:
		o.revoked = append(o.revoked, raw)
	case member.KindTime:
	default:
		if c, err := member.ParseCertificate(raw); err == nil && c.Node == self {
			o.cert = raw
		}
		return
	}
	_, _ = o.state.Put(at, raw) // the node has checked it
}

// followMembers learns again when certificates or revocations come.
func (g *Gateway) followMembers(ctx context.Context, home *app.Client) {
	var after uint64
	for ctx.Err() == nil {
		next, changed, err := home.MembersChanged(ctx, after)
		if err != nil {
			after = 0
			wait(ctx, learnEvery)
			continue
		}
		after = next
		if !changed {
			continue
		}
		if err := g.learn(ctx, home); err != nil && ctx.Err() == nil {
			g.c.Log.Warn("cluster not known", "err", err)
		}
		g.kick() // revocations go to the other side, too
		wait(ctx, time.Second)
	}
}

// kick has the book's news acted on.
func (g *Gateway) kick() {
	select {
	case g.news <- struct{}{}:
	default: // it will be looked at
	}
}

// Put takes a record or an end, whoever brings it, and enforces it at once.
func (g *Gateway) Put(ctx context.Context, raw []byte) error { return g.put(ctx, raw, false) }

func (g *Gateway) put(ctx context.Context, raw []byte, inside bool) error {
	if len(raw) > 0 && raw[0] == kindSuggestion {
		return g.suggested(raw)
	}
	enforce, err := g.keep(ctx, raw, inside)
	if err == nil {
		enforce()
	}
	return err
}

// keep puts a record into the book, and returns what enforces it: an answer may have to go out before.
func (g *Gateway) keep(ctx context.Context, raw []byte, inside bool) (enforce func(), err error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	before := map[Pair]Peering{}
	for _, p := range book.All() {
		before[p.Pair] = p
	}
	news, p, err := book.Put(raw, inside)
	if err != nil {
		g.c.Log.Warn("record of peering refused", "err", err)
		return nil, err
	}
	if !news {
		return func() {}, nil
	}
	if raw[0] == kindCarried {
		g.noteRotation(book, p)
	}
	return func() {
		g.enforceAll(ctx, book, p, before)
		g.kick()
	}, nil
}

func (g *Gateway) theBook() (*Book, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.book == nil {
		return nil, errNoCluster
	}
	return g.book, nil
}

// holds tells whether a peering is in force, and its administrators are some still.
func (g *Gateway) holds(p *Peering) error {
	if !p.InForce(g.now()) {
		return signal.Errorf(signal.ErrRefused, "the peering is over")
	}
	book, err := g.theBook()
	if err == nil && p.Moved.IsZero() {
		err = book.Trusted(p)
	} else if err == nil { // it lives as long as what took its place
		heir, _ := book.With(p.Moved)
		return g.holds(&heir)
	}
	if err != nil {
		return signal.Errorf(signal.ErrRefused, "%v", err)
	}
	return nil
}

// enforceAll enforces what is held of a pair, and of those whose place it took.
func (g *Gateway) enforceAll(ctx context.Context, book *Book, pair Pair, before map[Pair]Peering) {
	heir := before[pair]
	g.enforce(ctx, book, pair, &heir)
	for _, p := range book.All() {
		if heir, ok := book.With(p.Moved); ok && !p.Moved.IsZero() && heir.Pair == pair {
			g.enforceAll(ctx, book, p.Pair, before)
		}
	}
}

// enforce cuts what a pair may no longer do: its visitors here, and ours there. A record that gives something else than the
// one before it cuts as an end does; visitors that may still come do so by themselves.
func (g *Gateway) enforce(ctx context.Context, book *Book, pair Pair, before *Peering) {
	keeps := false
	for _, p := range book.All() {
		if p.Pair == pair && g.holds(&p) == nil {
			keeps = before.Record != nil && bytes.Equal(p.Gives().append(nil), before.Gives().append(nil))
		}
	}
	watched := g.tell(book, pair)
	if keeps {
		return
	}
	g.mu.Lock()
	home := g.home
	var out []key.Public
	for k, v := range g.guests {
		if v.pair == pair {
			out = append(out, k)
			delete(g.guests, k)
		}
	}
	t := g.ties[pair]
	g.mu.Unlock()
	if t != nil {
		t.cut()
	}
	if watched {
		wait(ctx, tellFirst)
	}
	for _, k := range out {
		g.vouch(ctx, home, k, 0)
	}
}

// tellFirst is how long visitors that are to be shut out have to hear why: their side then cuts by itself, too, and nobody
// waits for a peer that does not answer.
const tellFirst = 100 * time.Millisecond

// tell gives the watchers of a pair what is held of it; false: there are none.
func (g *Gateway) tell(book *Book, pair Pair) (any bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, raw := range book.rawsOf(pair) {
		for _, v := range g.guests {
			if v.pair != pair {
				continue
			}
			select {
			case v.watch <- raw:
				any = true
			default: // it reads too slowly, and learns it when it comes again
			}
		}
	}
	return any
}

// vouch says to the node for how long a visitor is ours to answer for.
func (g *Gateway) vouch(ctx context.Context, home *app.Client, k key.Public, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
	defer cancel()
	if err := home.Call(ctx, "node.vouch", map[string]any{"key": k, "seconds": d.Seconds()}, nil); err != nil {
		g.c.Log.Warn("word for visitor not taken", "peer", k, "err", err)
	}
}

// keepHouse forgets visitors that went, vouches anew for those that stay, and shuts out those whose time is over.
func (g *Gateway) keepHouse(ctx context.Context, home *app.Client) {
	book, err := g.theBook()
	if err != nil {
		return
	}
	if err := book.Save(); err != nil {
		g.c.Log.Warn("book of peerings not saved", "err", err)
	}
	now := g.now()
	over := map[Pair]bool{}
	for _, p := range book.All() {
		over[p.Pair] = g.holds(&p) != nil
	}
	g.mu.Lock()
	stay := map[key.Public]time.Duration{}
	for k, v := range g.guests {
		switch {
		case v.until <= now || over[v.pair]:
			stay[k] = 0
			delete(g.guests, k)
		case v.streams == 0 && time.Since(v.used) >= guestIdle:
			delete(g.guests, k) // the node forgets it by itself
		default:
			stay[k] = vouchFor
		}
	}
	g.mu.Unlock()
	for k, d := range stay {
		g.vouch(ctx, home, k, d)
	}
	g.kick()
}

// Messaging says who of a cluster may write to ours.
func (g *Gateway) Messaging(cluster key.Public) Messaging {
	p, ok := g.with(cluster)
	if !ok {
		return MessagingNo
	}
	return p.Gives().Messaging
}

// Verbs are the control verbs that a cluster may use on boxes of ours.
func (g *Gateway) Verbs(cluster key.Public) []string {
	p, ok := g.with(cluster)
	if !ok {
		return nil
	}
	return p.Gives().Verbs
}

// with returns the peering with a cluster, if it holds.
func (g *Gateway) with(cluster key.Public) (p Peering, ok bool) {
	book, err := g.theBook()
	if err != nil {
		return p, false
	}
	p, ok = book.With(cluster)
	return p, ok && g.holds(&p) == nil
}
