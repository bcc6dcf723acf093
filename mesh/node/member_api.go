package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
	"skywire/mesh/store"
)

// What people and the manager of this box ask and tell about membership: api.Clusters.

// Membership implements api.Clusters.
func (n *Node) Membership(ctx context.Context) (api.Membership, error) {
	m := api.Membership{Mode: "static", Network: n.network, State: stateNone}
	if n.cfg.Open {
		m.Mode = "open"
	}
	if n.members == nil {
		return m, nil
	}
	n.join.mu.Lock()
	m.Mode, m.Cluster = "cluster", n.join.file.Key.String()
	state, why, invited := n.join.state, n.join.why, n.join.invite != nil
	n.join.mu.Unlock()
	err := n.do(ctx, func(now time.Duration) {
		c := n.core
		c.now = now
		at := c.instant()
		o := c.standing(c.self)
		m.Why, m.State = o.Why, map[member.Rights]string{member.None: stateRevoked, member.Guest: stateGuest, member.Member: stateMember}[o.Rights]
		m.Certificate = certificateInfo(o.Certificate)
		m.Floor, m.Clock = time.Unix(n.members.Floor(), 0).UTC(), string(n.members.Clock(at))
		m.Guests = c.countGuests()
		for _, k := range n.members.Known() {
			if n.members.Member(at, k).Rights == member.Member {
				m.Members++
			}
			if name, conflict := n.members.Name(k); conflict {
				if name == "" {
					name = member.Claimed("", k)
				}
				m.Conflicts = append(m.Conflicts, name)
			}
		}
	})
	if m.State == stateGuest && invited && state != "" {
		m.State = state
		if why != "" {
			m.Why = why
		}
	}
	return m, err
}

func certificateInfo(c *member.Certificate) *api.CertificateInfo {
	if c == nil {
		return nil
	}
	day := func(unix int64) time.Time { return time.Unix(unix, 0).UTC() }
	info := &api.CertificateInfo{
		Name: c.Name, Tags: append([]string{}, c.Tags...), Serial: c.Serial, Issuer: c.Admin,
		Issued: day(c.Issued), NotAfter: day(c.NotAfter), Renew: day(c.Issued + (c.NotAfter-c.Issued)/2),
	}
	if c.IPv4.IsValid() {
		info.IPv4 = c.IPv4.String()
	}
	info.Roles = c.Roles.Words()
	return info
}

// Join implements api.Clusters.
func (n *Node) Join(ctx context.Context, text string) error {
	v, err := member.ParseInvite(text)
	if err != nil {
		return badInvite(err)
	}
	n.join.mu.Lock()
	have := n.join.file
	n.join.mu.Unlock()
	c, err := have.With(v, text)
	if err != nil {
		return err
	}
	if have.Key == c.Key {
		if o, err := n.ownStanding(ctx); err != nil || o.Rights == member.Member {
			return err // it is one already
		}
	}
	return n.enter(c, nil)
}

// Adopt implements api.Clusters.
func (n *Node) Adopt(_ context.Context, cluster key.Public, raws [][]byte) error {
	n.join.mu.Lock()
	have := n.join.file
	n.join.mu.Unlock()
	if !have.Key.IsZero() && have.Key != cluster {
		return ErrOtherCluster
	}
	s := member.New(member.Config{Cluster: cluster}, instant())
	s.Load(instant(), raws)
	if m := s.Member(instant(), n.Key()); m.Rights != member.Member {
		return fmt.Errorf("%w of that cluster: %s", ErrNotMember, m.Why)
	}
	have.Key = cluster
	return n.enter(have, raws)
}

// enter makes the node one of a cluster: written first, then it begins anew.
func (n *Node) enter(c Cluster, raws [][]byte) error {
	if n.store == nil {
		return fmt.Errorf("%w: without its store the node would forget who is revoked", ErrNoCluster)
	}
	n.join.mu.Lock()
	other := n.join.file.Key != c.Key
	n.join.mu.Unlock()
	err := n.store.Batch(func(t *store.Tx) error {
		if other {
			t.DeleteStatements()
		}
		t.PutCluster(c.Key)
		for _, raw := range raws {
			t.PutStatement(member.RefOf(raw), raw)
		}
		return nil
	})
	if err == nil {
		err = WriteCluster(n.cfg.State, c)
	}
	if err == nil {
		n.move()
	}
	return err
}

// Leave implements api.Clusters.
func (n *Node) Leave(context.Context) error {
	if n.members == nil {
		return ErrNoCluster
	}
	err := n.store.Batch(func(t *store.Tx) error { t.PutCluster(key.Public{}); t.DeleteStatements(); return nil })
	if errors.Is(err, store.ErrNone) {
		err = nil
	}
	if err == nil {
		err = WriteCluster(n.cfg.State, Cluster{})
	}
	if err == nil {
		n.move()
	}
	return err
}

// PutStatements implements api.Clusters.
func (n *Node) PutStatements(ctx context.Context, raws [][]byte) (r api.StatementsResult, err error) {
	err = n.do(ctx, func(now time.Duration) {
		for _, raw := range raws {
			news, err := n.core.Put(now, raw)
			if news {
				r.News++
			}
			if err != nil {
				r.Refused = append(r.Refused, err.Error())
			}
		}
		n.saveMembers()
	})
	if err == nil && n.members == nil {
		err = ErrNoCluster
	}
	n.kickMembership()
	return r, err
}

// Statements implements api.Clusters.
func (n *Node) Statements(ctx context.Context, after []byte, most int) (p api.StatementsPage, err error) {
	p.Statements = [][]byte{}
	if n.members == nil {
		return p, nil
	}
	var from member.Ref
	if len(after) > 0 && copy(from[:], after) != len(from) {
		return p, fmt.Errorf("%w: after which statement?", member.ErrFormat)
	}
	err = n.do(ctx, func(time.Duration) {
		raws, next := n.members.Raws(from, most)
		p.Cluster, p.Next = n.members.Cluster(), next[:]
		p.Statements = append(p.Statements, raws...)
	})
	return p, err
}

var _ api.Node = (*Node)(nil)
