package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/member"
	"skywire/mesh/store"
)

// How a node becomes a member, and stays one: it asks an issuer over the mesh, as a guest if it has to.
const (
	askIssuer    = 20 * time.Second // for one question, the way there included
	askFirst     = time.Second      // after one in vain, doubling
	askMost      = 5 * time.Minute
	lookMember   = 5 * time.Second // for a renewal that is due
	moveAfter    = 150 * time.Millisecond
	provesAtMost = 2 // over a connection that was replaced between chain and proof
)

// Words of Membership.State.
const (
	stateMember  = "member"
	stateGuest   = "guest"   // of its cluster: no certificate, or one that ran out
	stateJoining = "joining" // an issuer is asked
	statePending = "pending" // a person has to approve it
	stateRefused = "refused" // by the issuer
	stateRevoked = "revoked"
	stateNone    = "none" // there is no cluster
)

// joining is the state of what Node does to become or stay a member.
type joining struct {
	kick chan struct{} // capacity 1: look at once

	mu     sync.Mutex // guards the fields below
	file   Cluster
	invite *member.Invite // nil: nothing to join by
	state  string         // of an attempt: joining, pending, refused; empty: none
	why    string

	unsaved []statementChange // the owner's: not in the store yet
}

type statementChange struct {
	member.Change
	raw []byte
}

// enterCluster finds out to which cluster the node belongs, and what it knows of it.
func (n *Node) enterCluster() error {
	n.moved, n.join.kick = make(chan struct{}, 1), make(chan struct{}, 1)
	c, err := ReadCluster(n.cfg.State)
	if err != nil {
		return err
	}
	stored, _ := n.store.Cluster() // no store knows of none
	if c.Key.IsZero() && !stored.IsZero() {
		c.Key = stored
		if err := WriteCluster(n.cfg.State, c); err != nil {
			return err
		}
	}
	if c.Key.IsZero() {
		return nil
	}
	if n.cfg.Open || len(n.cfg.Allow) > 0 {
		n.log.Info("member of a cluster: --open and --allow have no effect", "cluster", c.Key)
	}
	n.join.file, n.network = c, key.Cluster(c.Key)
	if n.join.invite, err = parseInvite(c.Invite); err != nil {
		n.log.Warn("invite can't be used", "err", err)
	}
	for _, p := range c.Peers {
		if k, a, ok := strings.Cut(p, "@"); ok {
			if k, err := key.Parse(k); err == nil && k != n.identity.Public() {
				n.cfg.Peers = append(n.cfg.Peers[:len(n.cfg.Peers):len(n.cfg.Peers)], Peer{Key: k, Addr: a})
			}
		}
	}
	floor, _ := n.store.Floor()
	n.members = member.New(member.Config{Cluster: c.Key, Floor: floor}, instant())
	if stored != c.Key {
		return nil // what the store holds is of another one
	}
	raws, err := n.store.Statements()
	if err == nil {
		if refused := n.members.Load(instant(), raws); refused > 0 {
			n.log.Warn("statements of the cluster not taken", "count", refused)
		}
	}
	return nil
}

func parseInvite(text string) (*member.Invite, error) {
	if text == "" {
		return nil, nil
	}
	return member.ParseInvite(text)
}

func instant() member.Instant { return member.Instant{Up: link.Now(), Wall: time.Now()} }

// storeStatement keeps a statement that is news, with the next save of the owner's.
func (n *Node) storeStatement(ch member.Change, raw []byte) {
	n.join.unsaved = append(n.join.unsaved, statementChange{ch, raw})
	n.kickMembership()
	if ch.Ref.Kind() == member.KindRevocation {
		n.resolve.again() // who is restored is to be linked at once
	}
}

// saveMembers writes what is new of the cluster's statements: at once, since a restart must not forget a revocation.
func (n *Node) saveMembers() {
	changes := n.join.unsaved
	if len(changes) == 0 {
		return
	}
	n.join.unsaved = nil
	if n.store == nil {
		return
	}
	err := n.store.Batch(func(t *store.Tx) error {
		t.PutCluster(n.members.Cluster())
		for _, ch := range changes {
			t.PutStatement(ch.Ref, ch.raw)
			for _, gone := range ch.Gone {
				t.DeleteStatement(gone)
			}
		}
		t.PutFloor(n.members.Floor())
		return nil
	})
	if err != nil {
		n.log.Error("statements of the cluster not saved", "err", err)
	}
}

func (n *Node) kickMembership() {
	select {
	case n.join.kick <- struct{}{}:
	default: // it will look
	}
}

// keepMembership joins and renews, until ctx ends.
func (n *Node) keepMembership(ctx context.Context) error {
	if n.members == nil {
		<-ctx.Done()
		return nil
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.join.kick:
			if failed > 0 {
				continue // what came does not make the issuer answer sooner
			}
		case <-wait.C:
		}
		pause, err := n.membershipStep(ctx)
		if err == nil {
			failed = 0
		} else if ctx.Err() == nil {
			pause = max(pause, min(askFirst<<min(failed, 12), askMost))
			failed++
			n.log.Info("not a member yet", "err", err)
		}
		wait.Reset(pause)
	}
}

// ownStanding is how this node stands.
type ownStanding struct {
	member.Membership
	due      bool
	managers []key.Public
}

func (n *Node) ownStanding(ctx context.Context) (o ownStanding, err error) {
	err = n.do(ctx, func(now time.Duration) {
		n.core.now = now
		at := n.core.instant()
		o = ownStanding{n.core.standing(n.core.self), n.members.RenewDue(at, n.core.self), n.members.Managers(at)}
	})
	return o, err
}

// membershipStep does what is due, and tells when to look again.
func (n *Node) membershipStep(ctx context.Context) (time.Duration, error) {
	o, err := n.ownStanding(ctx)
	if err != nil {
		return lookMember, err
	}
	n.join.mu.Lock()
	invite, state := n.join.invite, n.join.state
	n.join.mu.Unlock()
	switch {
	case o.Rights == member.Member && invite != nil:
		n.joined(o.Certificate)
	case o.Rights == member.None:
		return lookMember, nil // only an admin can help
	case o.Rights == member.Member && !o.due:
	case o.Rights != member.Member && invite != nil && state != stateRefused:
		return n.askToJoin(ctx, invite)
	case o.Certificate != nil:
		return lookMember, n.renew(ctx, o)
	}
	return lookMember, nil
}

// joined notes that the invite has done its work.
func (n *Node) joined(c *member.Certificate) {
	n.join.mu.Lock()
	defer n.join.mu.Unlock()
	n.join.invite, n.join.state, n.join.why, n.join.file.Invite = nil, "", "", ""
	if err := WriteCluster(n.cfg.State, n.join.file); err != nil {
		n.log.Warn("invite not removed", "err", err)
	}
	n.log.Info("member of the cluster", "cluster", n.join.file.Key, "name", c.Name)
}

func (n *Node) setJoining(state, why string) {
	n.join.mu.Lock()
	defer n.join.mu.Unlock()
	n.join.state, n.join.why = state, why
}

// askToJoin redeems the invite: first the issuer shows its chain up to the cluster key of the invite, then we prove the
// secret, over the same connection.
func (n *Node) askToJoin(ctx context.Context, v *member.Invite) (time.Duration, error) {
	n.setJoining(stateJoining, "")
	reply, err := n.redeem(ctx, v)
	if err != nil {
		n.setJoining(stateJoining, err.Error())
		return 0, err
	}
	retry := max(time.Duration(reply.Retry)*time.Second, askFirst)
	switch reply.Status {
	case member.StatusDone:
		if err := n.takeStatements(ctx, reply.Statements); err != nil {
			return 0, fmt.Errorf("certificate of %s: %w", v.Issuer.Short(), err)
		}
		return 0, nil
	case member.StatusPending:
		n.setJoining(statePending, reply.Reason)
		return retry, nil
	case member.StatusRefused:
		n.setJoining(stateRefused, reply.Reason)
		n.log.Warn("the issuer refuses us", "peer", v.Issuer, "reason", reply.Reason)
		return lookMember, nil
	}
	n.setJoining(stateJoining, reply.Reason)
	return retry, nil
}

func (n *Node) redeem(ctx context.Context, v *member.Invite) (reply member.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, askIssuer)
	defer cancel()
	if err := n.seek(ctx, v.Issuer); err != nil {
		return reply, err
	}
	for range provesAtMost {
		chain, binding, err := n.ask(ctx, v.Issuer, member.Request{Op: member.OpChain})
		if err != nil {
			return reply, err
		}
		if err := checkChain(v, chain); err != nil {
			return reply, err
		}
		var used [32]byte
		reply, used, err = n.ask(ctx, v.Issuer, member.Request{
			Op: member.OpJoin, Invite: v.ID, Proof: member.Proof(v.Secret, binding, n.Key()), Name: wish(n.cfg.Name),
		})
		if err != nil || used == binding {
			return reply, err
		}
	}
	return reply, nil
}

// wish is the name that a joiner asks for: the box's own, if it can be one.
func wish(name string) string {
	if name = strings.ToLower(name); member.ValidName(name) {
		return name
	}
	return ""
}

// checkChain tells whether the one who answers may admit members of the cluster that the invite names.
func checkChain(v *member.Invite, chain member.Reply) error {
	s := member.New(member.Config{Cluster: v.Cluster}, instant())
	s.Load(instant(), chain.Statements)
	m := s.Member(instant(), v.Issuer)
	switch {
	case m.Rights != member.Member:
		return fmt.Errorf("issuer %s: %s", v.Issuer.Short(), m.Why)
	case m.Certificate.Roles&member.RoleManager == 0:
		return fmt.Errorf("issuer %s: %w", v.Issuer.Short(), member.ErrUntrusted)
	}
	return nil
}

// seek begins to look for the way to an issuer.
func (n *Node) seek(ctx context.Context, issuer key.Public) error {
	return n.do(ctx, func(now time.Duration) { n.core.Seek(now, issuer) })
}

// ask puts one question to an issuer.
func (n *Node) ask(ctx context.Context, issuer key.Public, r member.Request) (reply member.Reply, binding [32]byte, err error) {
	s, err := n.streams.Dial(ctx, issuer, member.Service, r.Append(nil))
	if err != nil {
		return reply, binding, fmt.Errorf("issuer %s: %w", issuer.Short(), err)
	}
	defer s.Close()
	copy(binding[:], s.Binding())
	reply, err = member.ParseReply(s.Reply())
	return reply, binding, err
}

// takeStatements puts the answer of an issuer into force.
func (n *Node) takeStatements(ctx context.Context, raws [][]byte) error {
	r, err := n.PutStatements(ctx, raws)
	if err == nil && r.News == 0 && len(r.Refused) > 0 {
		err = errors.New(r.Refused[0])
	}
	return err
}

// renew asks the managers, in turn, for the next certificate; as a guest, the one to which there is a way.
func (n *Node) renew(ctx context.Context, o ownStanding) error {
	ctx, cancel := context.WithTimeout(ctx, 2*askIssuer)
	defer cancel()
	managers := o.managers
	if o.Rights != member.Member {
		issuer, err := n.findIssuer(ctx)
		if err != nil {
			return err
		}
		managers = []key.Public{issuer}
		defer func() { _ = n.do(context.WithoutCancel(ctx), func(time.Duration) { n.core.Unseek() }) }()
	}
	err := errNoIssuer
	for _, k := range managers {
		if k == n.Key() {
			continue // the manager of this box renews it without us
		}
		step, cancel := context.WithTimeout(ctx, askIssuer)
		var reply member.Reply
		reply, _, err = n.ask(step, k, member.Request{Op: member.OpRenew})
		cancel()
		switch {
		case err != nil:
		case reply.Status == member.StatusDone:
			n.log.Info("certificate renewed", "peer", k)
			return n.takeStatements(ctx, reply.Statements)
		default:
			err = fmt.Errorf("issuer %s: %s", k.Short(), reply.Reason)
		}
	}
	return err
}

// findIssuer waits until a neighbour tells a way to any issuer.
func (n *Node) findIssuer(ctx context.Context) (k key.Public, err error) {
	if err := n.seek(ctx, key.Public{}); err != nil {
		return k, err
	}
	look := time.NewTicker(guestLook)
	defer look.Stop()
	for ok := false; !ok; {
		select {
		case <-ctx.Done():
			return k, errNoIssuer
		case <-look.C:
		}
		if err := n.do(ctx, func(time.Duration) { k, ok = n.core.Found() }); err != nil {
			return k, errNoIssuer
		}
	}
	return k, nil
}
