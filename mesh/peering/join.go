package peering

import (
	"context"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// methodAccept takes an invite: our administrator signs the record first, the other one's gateway signs it last, and hands
// it back. It asks again while a person there has to look.
func (g *Gateway) methodAccept(ctx context.Context, p AcceptParams) (any, error) {
	book, home, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	v, err := ParseInvite(p.Invite)
	if err != nil {
		return nil, usage(err)
	}
	now := g.now()
	switch {
	case v.Offer.Cluster == own.cluster:
		return nil, signal.Errorf(signal.ErrUsage, "this is an invite of our own cluster")
	case now >= v.Expires:
		return nil, signal.Errorf(signal.ErrRefused, "the invite ran out on %s: ask for a new one", time.Unix(v.Expires, 0).UTC().Format(time.DateTime))
	}
	admin, err := g.admin(own, member.MayIssue)
	if err != nil {
		return nil, err
	}
	side := Side{Cluster: own.cluster, Admin: admin.Public(), List: own.list, Name: orWord(p.Name, clusterName(own.cluster)), Gives: v.Asks}
	if side.Gates, err = g.gates(ctx, home, p.Gates); err != nil {
		return nil, err
	}
	floor, list, err := g.look(ctx, v, own.cluster)
	if err != nil {
		return nil, err
	}
	if err := mayPeer(v.Offer.Cluster, list, v.Offer.Admin, member.MayIssue); err != nil {
		return nil, fmt.Errorf("invite: %w", err)
	}
	if held, ok := book.With(v.Offer.Cluster); ok && held.Record != nil {
		if _, err := book.Learn(v.Offer.Cluster, list); err != nil {
			return nil, err
		}
	}
	offer := v.Offer
	offer.List = list
	r := NewRecord(offer, side)
	r.Seq, r.Issued, r.Expires = max(floor, book.Floor(r.Pair()))+1, now, v.Until
	if err := r.Sign(admin); err != nil {
		return nil, usage(err)
	}
	return g.submit(ctx, book, v, r, p)
}

// proven is the beginning of a request by who has an invite.
func (v *Invite) proven(self key.Public) []byte {
	m := proof(v.Secret, self, v.Node)
	return append(append([]byte(nil), v.ID[:]...), m[:]...)
}

// look asks who made an invite for the number of the record and its admin list.
func (g *Gateway) look(ctx context.Context, v *Invite, own key.Public) (floor uint64, list []byte, err error) {
	at := placeOf(v.Offer.Cluster, v.Offer.Gates, v.Node)
	_, answer, _, err := g.call(ctx, at, v.Node, opLook, func(self key.Public) []byte { return append(v.proven(self), own[:]...) })
	if err != nil {
		return 0, nil, err
	}
	c := &cursor{b: answer}
	floor, list = c.u64(), c.bytes(member.MaxStatement)
	if err := c.end("look"); err != nil {
		return 0, nil, err
	}
	if floor > maxSeq {
		return 0, nil, fmt.Errorf("look: %w", ErrFormat)
	}
	return floor, list, nil
}

// maxSeq leaves room above any number that may ever be used.
const maxSeq = 1 << 62

const askAgain = 3 * time.Second

// submit hands our word over until the other side has given its own, or ctx ends.
func (g *Gateway) submit(ctx context.Context, book *Book, v *Invite, r *Record, p AcceptParams) (any, error) {
	raw := r.Append(nil)
	at := placeOf(v.Offer.Cluster, v.Offer.Gates, v.Node)
	for {
		status, answer, _, err := g.call(ctx, at, v.Node, opAccept, func(self key.Public) []byte { return appendBytes(v.proven(self), raw) })
		switch {
		case err != nil && ctx.Err() != nil:
			return AcceptResult{State: "pending"}, nil
		case err != nil:
			return nil, err
		case status == statusPending:
			if wait(ctx, askAgain); ctx.Err() != nil {
				return AcceptResult{State: "pending"}, nil
			}
			continue
		}
		signed, err := ParseRecord(answer)
		if err != nil || string(signed.body()) != string(r.body()) {
			return nil, fmt.Errorf("the other gateway's answer: %w", ErrFormat)
		}
		if err := g.put(context.WithoutCancel(ctx), answer, true); err != nil {
			return nil, err
		}
		if err := book.SetLocal(v.Offer.Cluster, p.Alias, p.Allow); err != nil {
			return nil, err
		}
		g.kick()
		held, _ := book.With(v.Offer.Cluster)
		info := g.info(&held)
		return AcceptResult{State: "done", Peering: &info}, nil
	}
}
