//go:build issuer || !(mips || mipsle)

package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/store"
)

// Limits and times of an issuer.
const (
	maxOffers    = 256 // invites in the book; those that are over give way
	maxPending   = 64  // joiners that wait for a person
	pendingLife  = 15 * time.Minute
	retryPending = 5 // seconds, told to who waits
	retryBusy    = 2
	countEvery   = time.Minute     // how often the time of invites is stored
	learnSoon    = 2 * time.Second // what the node holds is asked anew for joiners after this, so that they can't make us busy,
	learnLate    = time.Minute     // and for the housekeeping
	tellEvery    = 24 * time.Hour  // how often the time is signed
	putBatch     = 64              // statements given to the node at once
)

// Members is what the issuer needs of the node beside it. MembersOf makes one of an app.Client.
type Members interface {
	Self() app.Info
	// Accept waits for the next request for the service member.Service.
	Accept(ctx context.Context) (*Asked, error)
	// PutStatements gives statements to the node, which stores them and floods what is news.
	PutStatements(ctx context.Context, raws [][]byte) error
	// Statements returns all statements that the node holds, and of which cluster; the zero key: of none.
	Statements(ctx context.Context) (cluster key.Public, raws [][]byte, err error)
}

// Asked is a request that waits for its reply.
type Asked struct {
	Peer    key.Public // who the handshake proved
	Header  []byte
	Binding [32]byte
	Reply   func(b []byte) error // exactly one call
}

// IssuerConfig of an Issuer.
type IssuerConfig struct {
	Members Members
	Store   *store.DB // nil: nothing is issued, since nothing would be remembered
	// Admin returns the key that signs, an error that tells a person what is missing while there is none.
	Admin   func() (*key.Private, error)
	Life    time.Duration // of certificates; 0: member.DefaultLife, or what the admin list allows
	Approve bool          // joiners wait for a person
	Up      func() time.Duration
	Wall    func() time.Time
	Log     *slog.Logger
}

// Issuer lets nodes into the cluster: it keeps the book of invites, signs certificates and revocations with the admin key
// of its box, and renews. One decision is made at a time, and nobody hears of it before the store has it.
type Issuer struct {
	c IssuerConfig

	turn    sync.Mutex // held for one decision and its transaction; guards the fields below
	admin   *key.Private
	state   *member.State // nil: of no cluster yet
	offers  map[member.InviteID]*member.Offer
	pending map[key.Public]*pending
	counted time.Duration // when the time of offers was last added up
	learnt  time.Duration // when the node was last asked what it holds
}

// pending is a joiner who waits.
type pending struct {
	offer member.InviteID
	name  string
	asked time.Duration // last
	since time.Time     // for people
}

// NewIssuer makes an Issuer; Run serves joiners.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	switch {
	case c.Members == nil || c.Admin == nil:
		return nil, errors.New("issuer: no node or no key")
	case c.Up == nil || c.Wall == nil:
		return nil, errors.New("issuer: no clock")
	case c.Log == nil:
		return nil, errors.New("issuer: no log")
	}
	return &Issuer{c: c, offers: map[member.InviteID]*member.Offer{}, pending: map[key.Public]*pending{}}, nil
}

func (i *Issuer) at() member.Instant { return member.Instant{Up: i.c.Up(), Wall: i.c.Wall()} }

// errNoCluster is what people read who ask for an invite too early.
var errNoCluster = errors.New("the node of this box belongs to no cluster; make one with: skywire manager cluster create")

// ready brings the issuer up to date with its key and, if it last was longer than a time ago, with the node. The caller has
// the turn.
func (i *Issuer) ready(ctx context.Context, longer time.Duration) error {
	if i.c.Store == nil {
		return fmt.Errorf("nothing can be issued: %w", store.ErrNone)
	}
	if i.admin == nil {
		k, err := i.c.Admin()
		if err != nil {
			return err
		}
		i.admin = k
	}
	if up := i.c.Up(); i.state == nil || up-i.learnt >= longer {
		if err := i.learn(ctx); err != nil {
			return err
		}
		i.learnt = up
	}
	return nil
}

// learn takes over what the node holds, and gives it what only we have: what was signed just before a crash.
func (i *Issuer) learn(ctx context.Context) error {
	cluster, raws, err := i.c.Members.Statements(ctx)
	if err != nil {
		return fmt.Errorf("statements of the node: %w", err)
	}
	if cluster.IsZero() {
		return errNoCluster
	}
	at := i.at()
	var stored [][]byte
	if i.state == nil || i.state.Cluster() != cluster {
		if stored, err = i.load(at, cluster); err != nil {
			return err
		}
	}
	theirs := make(map[member.Ref]bool, len(raws))
	for _, raw := range raws {
		theirs[member.RefOf(raw)] = true
	}
	i.state.Load(at, append(raws, stored...)) // together: the list that judges what is stored comes from the node
	var lost [][]byte
	for after := (member.Ref{}); ; {
		held, next := i.state.Raws(after, 1<<20)
		for _, raw := range held {
			if !theirs[member.RefOf(raw)] {
				lost = append(lost, raw)
			}
		}
		if next == after {
			break
		}
		after = next
	}
	return i.give(ctx, lost)
}

func (i *Issuer) give(ctx context.Context, raws [][]byte) error {
	for len(raws) > 0 {
		n := min(len(raws), putBatch)
		if err := i.c.Members.PutStatements(ctx, raws[:n]); err != nil {
			return fmt.Errorf("statements for the node: %w", err)
		}
		raws = raws[n:]
	}
	return nil
}

// load reads the book and returns the statements in it. What was signed for another cluster is refused by the state.
func (i *Issuer) load(at member.Instant, cluster key.Public) (raws [][]byte, err error) {
	floor, err := i.c.Store.Floor()
	if err != nil {
		return nil, err
	}
	raws, err = i.c.Store.Statements()
	if err != nil {
		return nil, err
	}
	offers, err := i.c.Store.Offers()
	if err != nil {
		return nil, err
	}
	i.state = member.New(member.Config{Cluster: cluster, Floor: floor}, at)
	clear(i.offers)
	for _, raw := range offers {
		if o, err := member.ParseOffer(raw); err == nil {
			i.offers[o.ID] = o
		}
	}
	i.counted = at.Up
	return raws, nil
}

// commit stores statements that were just signed, and offers that changed, in one transaction; then the node may have
// them. What fails to reach the node now does so with the next learn.
func (i *Issuer) commit(ctx context.Context, at member.Instant, raws [][]byte, offers ...*member.Offer) error {
	err := i.c.Store.Batch(func(tx *store.Tx) error {
		for _, raw := range raws {
			tx.PutStatement(member.RefOf(raw), raw)
		}
		for _, o := range offers {
			tx.PutOffer(o.ID, o.Append(nil))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("nothing was issued: %w", err)
	}
	var gone []member.Ref
	for _, raw := range raws {
		ch, err := i.state.Put(at, raw)
		if err != nil {
			return fmt.Errorf("own statement refused: %w", err)
		}
		gone = append(gone, ch.Gone...)
	}
	floor := i.state.Floor()
	err = i.c.Store.Batch(func(tx *store.Tx) error {
		for _, ref := range gone {
			tx.DeleteStatement(ref)
		}
		tx.PutFloor(floor)
		return nil
	})
	if err != nil {
		i.c.Log.Warn("old statements not removed", "err", err)
	}
	if err := i.give(ctx, raws); err != nil {
		i.c.Log.Warn("node not told of statements; it will be", "err", err)
	}
	return nil
}

// Run answers joiners and renewals, keeps the time of invites, renews the certificate of this box's own node and signs the
// time, until ctx ends.
func (i *Issuer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() { i.keepHouse(ctx) })
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		asked, err := i.c.Members.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, app.ErrClosed), errors.Is(err, io.EOF):
			return fmt.Errorf("accept joiners: %w", err)
		case err != nil:
			i.c.Log.Debug("joiner not accepted", "err", err)
			wait.Reset(time.Second)
		default:
			i.answer(ctx, asked)
			wait.Reset(0)
		}
	}
}

// answer judges one request. The reply goes to the node beside us, which is bounded in time.
func (i *Issuer) answer(ctx context.Context, a *Asked) {
	var r member.Reply
	q, err := member.ParseRequest(a.Header)
	if err != nil {
		r = refuse("the request makes no sense to this manager")
	} else {
		step, cancel := context.WithTimeout(ctx, callTimeout)
		r = i.Answer(step, a.Peer, a.Binding, q)
		cancel()
	}
	if err := a.Reply(r.Append(nil)); err != nil {
		i.c.Log.Debug("reply not sent", "peer", a.Peer, "err", err) // he asks again, and gets the same
	}
}

func refuse(format string, args ...any) member.Reply {
	s := fmt.Sprintf(format, args...)
	return member.Reply{Status: member.StatusRefused, Reason: s[:min(len(s), member.MaxReason)]}
}
