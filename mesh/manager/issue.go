//go:build issuer || !(mips || mipsle)

package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Answer judges what a node asks over a stream of its own.
func (i *Issuer) Answer(ctx context.Context, peer key.Public, binding [32]byte, q member.Request) member.Reply {
	i.turn.Lock()
	defer i.turn.Unlock()
	if err := i.ready(ctx, learnSoon); err != nil {
		i.c.Log.Warn("joiner turned away", "peer", peer, "err", err)
		return member.Reply{Status: member.StatusBusy, Retry: retryBusy, Reason: "the manager is not ready"}
	}
	switch q.Op {
	case member.OpJoin:
		return i.join(ctx, peer, binding, q)
	case member.OpRenew:
		return i.renew(ctx, peer)
	}
	return i.granted(nil)
}

// granted is the chain, and a certificate behind it.
func (i *Issuer) granted(cert []byte) member.Reply {
	r := member.Reply{Status: member.StatusDone}
	_, list := i.state.Admins()
	for _, raw := range [][]byte{list, i.state.RawCertificate(i.c.Members.Self().Key), cert} {
		if raw != nil {
			r.Statements = append(r.Statements, raw)
		}
	}
	return r
}

func (i *Issuer) join(ctx context.Context, peer key.Public, binding [32]byte, q member.Request) member.Reply {
	at := i.at()
	o := i.offers[q.Invite]
	if o == nil {
		return refuse("this manager has no such invite; ask for a new one")
	}
	i.count(at)
	i.recall(o)
	wrong, err := o.Check(binding, peer, q.Proof)
	if wrong {
		i.c.Log.Warn("wrong proof of an invite", "peer", peer, "id", fmt.Sprintf("%x", o.ID))
		if err := i.commit(ctx, at, nil, o); err != nil {
			i.c.Log.Warn("invite not stored", "err", err)
		}
	}
	switch {
	case err != nil:
		return refuse("%v", err)
	case i.state.Revoked(peer):
		return refuse("this node was revoked; it can be restored with: manager restore")
	case o.Has(peer):
		if raw := i.state.RawCertificate(peer); raw != nil {
			return i.granted(raw)
		}
	case i.c.Approve:
		return i.wait(at, o, peer, q.Name)
	}
	return i.admit(ctx, at, o, peer, q.Name)
}

// wait puts a joiner on the list of those that a person has to approve.
func (i *Issuer) wait(at member.Instant, o *member.Offer, peer key.Public, wish string) member.Reply {
	wish = o.NameFor(wish)
	p := i.pending[peer]
	if p == nil {
		if len(i.pending) >= maxPending {
			return member.Reply{Status: member.StatusBusy, Retry: retryPending, Reason: "too many nodes wait for approval"}
		}
		p = &pending{since: at.Wall}
		i.pending[peer] = p
		i.c.Log.Info("node waits for approval", "peer", peer, "name", wish)
	}
	p.offer, p.name, p.asked = o.ID, wish, at.Up
	return member.Reply{Status: member.StatusPending, Retry: retryPending, Reason: "waits for: manager approve " + peer.Short()}
}

// admit signs the first certificate of a joiner, and stores it with the offer's new state before anybody hears of it.
func (i *Issuer) admit(ctx context.Context, at member.Instant, o *member.Offer, peer key.Public, wish string) member.Reply {
	raw, err := i.certify(at, member.Certificate{
		Node: peer, Roles: o.Roles | member.RoleMember, Serial: i.serial(at, o.ID), Name: i.freeName(o.NameFor(wish), peer), Tags: o.Tags,
	})
	if err != nil {
		i.c.Log.Error("certificate not issued", "peer", peer, "err", err)
		return refuse("the manager may not issue what this invite promises")
	}
	next := *o
	if !o.Has(peer) {
		next.Joined = append(append([]key.Public(nil), o.Joined...), peer)
	}
	next.Wrong = 0
	if err := i.commit(ctx, at, [][]byte{raw}, &next); err != nil {
		i.c.Log.Error("certificate not issued", "peer", peer, "err", err)
		return member.Reply{Status: member.StatusBusy, Retry: retryPending, Reason: "the manager can't store"}
	}
	*o = next
	delete(i.pending, peer)
	i.c.Log.Info("node joined", "peer", peer, "name", i.nameOf(peer))
	return i.granted(raw)
}

func (i *Issuer) nameOf(k key.Public) string {
	name, _ := i.state.Name(k)
	return name
}

// freeName is the wished name unless another node has it; then the start of the key follows.
func (i *Issuer) freeName(wish string, k key.Public) string {
	if wish == "" {
		return ""
	}
	owner, _, taken := i.state.Lookup(wish)
	if !taken || owner == k {
		return wish
	}
	return member.Claimed(wish[:min(len(wish), member.MaxName-5)], k)
}

// serial is new for each node that joins, and rises with time, so that of two issuers' the older one can be told. Its low
// bits are the invite's.
func (i *Issuer) serial(at member.Instant, id member.InviteID) uint64 {
	return uint64(i.state.Stamp(at))<<inviteBits | inviteOf(id)
}

// inviteBits are the bits of a serial that tell by which invite the node came.
const inviteBits = 24

func inviteOf(id member.InviteID) uint64 { return uint64(id[0])<<16 | uint64(id[1])<<8 | uint64(id[2]) }

// recall finds in the certificates who came by an invite: an issuer restored from a backup has forgotten it, the mesh has
// not, and what was good for one node is not good for another.
func (i *Issuer) recall(o *member.Offer) {
	at, made := i.at(), o.Until-int64(o.Life/time.Second)
	for _, k := range i.state.Known() {
		c := i.state.Member(at, k).Certificate
		if c != nil && c.Serial&(1<<inviteBits-1) == inviteOf(o.ID) && int64(c.Serial>>inviteBits) >= made && !o.Has(k) && len(o.Joined) < member.MaxUses {
			o.Joined = append(o.Joined, k)
		}
	}
}

// errAnother is returned when another admin's certificate holds what ours may not.
var errAnother = errors.New("this manager may not issue that")

// unlisted says what is missing while our key may not issue.
func (i *Issuer) unlisted() error {
	return fmt.Errorf("the key of this manager may not sign yet; where the cluster key is: skywire manager cluster sign-admin %s", i.admin.Public())
}

// certify fills in the times and signs. Whatever the node held before is replaced by it.
func (i *Issuer) certify(at member.Instant, c member.Certificate) ([]byte, error) {
	list, _ := i.state.Admins()
	me, ok := list.Find(i.admin.Public())
	if !ok || me.Powers&member.MayIssue == 0 {
		return nil, i.unlisted()
	}
	old := i.state.Member(at, c.Node).Certificate
	c.Cluster, c.Admin, c.Issued = i.state.Network(), me.Key, i.state.Stamp(at)
	if old != nil {
		c.Issued = max(c.Issued, old.Issued+1)
	}
	life := i.c.Life
	if life == 0 {
		life = member.DefaultLife
	}
	c.NotAfter = c.Issued + int64(min(life, me.Life)/time.Second)
	if !c.IPv4.IsValid() && (old == nil || !old.IPv4.IsValid()) {
		c.IPv4 = i.state.FreeIPv4(me.IPv4)
	}
	if !me.May(&c) {
		return nil, errAnother
	}
	return c.Sign(i.state.Network(), i.admin)
}

// renew gives the next certificate to who holds one, be it expired, and the same again before half of its life.
func (i *Issuer) renew(ctx context.Context, peer key.Public) member.Reply {
	at := i.at()
	m := i.state.Member(at, peer)
	switch {
	case m.Rights == member.None:
		return refuse("%s", m.Why)
	case m.Certificate == nil:
		return refuse("this node has no certificate of the cluster; it needs an invite")
	case !m.Expired && !i.state.RenewDue(at, peer):
		return i.granted(i.state.RawCertificate(peer))
	}
	raw, err := i.again(at, m)
	if err == nil {
		err = i.commit(ctx, at, [][]byte{raw})
	}
	switch {
	case errors.Is(err, errAnother):
		return refuse("only the manager with the key %s may renew this certificate", m.Certificate.Admin.Short())
	case err != nil:
		i.c.Log.Error("certificate not renewed", "peer", peer, "err", err)
		return member.Reply{Status: member.StatusBusy, Retry: retryPending, Reason: "the manager can't sign or store"}
	}
	i.c.Log.Info("certificate renewed", "peer", peer, "name", i.nameOf(peer))
	return i.granted(raw)
}

// again signs what a node has anew. Of what this manager may not give, a node that ran out keeps its membership and name.
func (i *Issuer) again(at member.Instant, m member.Membership) ([]byte, error) {
	c := *m.Certificate
	raw, err := i.certify(at, c)
	if errors.Is(err, errAnother) && m.Expired {
		list, _ := i.state.Admins()
		me, _ := list.Find(i.admin.Public())
		c.Roles, c.Tags, c.IPv4 = member.RoleMember, nil, i.state.FreeIPv4(me.IPv4)
		raw, err = i.certify(at, c)
	}
	return raw, err
}
