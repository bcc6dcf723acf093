package peering

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// RotateParams is peer.rotation, which asks what is to be signed, and peer.rotate, which takes what was.
type RotateParams struct {
	Old      key.Public `json:"old,omitzero"`
	OverlapS int64      `json:"overlap_s,omitempty"`
	Gates    []string   `json:"gates,omitempty"`
	Signed   []byte     `json:"signed,omitempty"` // of peer.rotate
	WaitS    int64      `json:"wait_s,omitempty"` // for the other sides
}

// RotationInfo is what peer.rotation answers. Rotation is what RotationOf makes of it again.
type RotationInfo struct {
	Old   key.Public       `json:"old"`
	New   key.Public       `json:"new"`
	Seq   uint64           `json:"number"`
	At    int64            `json:"issued"`
	Until int64            `json:"until"`
	Admin key.Public       `json:"admin"`
	List  []byte           `json:"list"`
	Gates []member.Contact `json:"gates"`
	Names []string         `json:"peerings"`
}

// Rotation is what the two cluster keys are to sign.
func (i *RotationInfo) Rotation() *Rotation {
	return &Rotation{Old: i.Old, New: i.New, Seq: i.Seq, Issued: i.At, Until: i.Until, Admin: i.Admin, List: i.List, Gates: i.Gates}
}

// RotateResult is peer.rotate.
type RotateResult struct {
	Peerings []PeeringInfo `json:"peerings"`
	Failed   string        `json:"failed,omitempty"` // those that could not be carried over, and why
}

// RotatedInfo is the last change of a cluster key that a peering went through, for people.
type RotatedInfo struct {
	From  key.Public `json:"from"`
	To    key.Public `json:"to"`
	By    string     `json:"by"` // us, them
	At    time.Time  `json:"at"`
	Until time.Time  `json:"old_key_until"`
	// Told is for a key of ours: whether the other side knows: yes, not yet, refused.
	Told string `json:"told,omitempty"`
	Why  string `json:"why,omitempty"`
}

func (g *Gateway) methodRotation(ctx context.Context, p RotateParams) (any, error) {
	book, home, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	if p.Old == own.cluster {
		return nil, signal.Errorf(signal.ErrUsage, "this node is in the cluster of the old key still: move it first (skywire node leave, then skywire node join, or skywire manager cluster create)")
	}
	if p.OverlapS < 0 || p.OverlapS > maxOverlap {
		return nil, signal.Errorf(signal.ErrUsage, "an overlap of 0 to 30 days is possible")
	}
	admin, err := g.admin(own, member.MayIssue)
	if err != nil {
		return nil, err
	}
	gates, err := g.gates(ctx, home, p.Gates)
	if err != nil {
		return nil, err
	}
	r, names, err := book.Rotation(p.Old, g.now(), p.OverlapS, admin.Public(), own.list, gates)
	if err != nil {
		return nil, err
	}
	return RotationInfo{r.Old, r.New, r.Seq, r.Issued, r.Until, r.Admin, r.List, r.Gates, names}, nil
}

// methodRotate takes the peerings of the old key along, and waits until the other sides know or the time is over.
func (g *Gateway) methodRotate(ctx context.Context, p RotateParams) (any, error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	pairs, err := book.Carry(p.Signed)
	if len(pairs) == 0 {
		if err == nil {
			err = errNoPeering
		}
		return nil, err
	}
	r := RotateResult{}
	if err != nil {
		r.Failed = err.Error()
	}
	for _, pair := range pairs {
		g.noteRotation(book, pair)
	}
	g.kick()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(max(p.WaitS, 0), 600))*time.Second)
	defer cancel()
	for {
		r.Peerings = r.Peerings[:0]
		open := false
		for _, held := range book.All() {
			i := g.info(&held)
			if i.Rotated == nil || i.Rotated.By != "us" {
				continue
			}
			r.Peerings = append(r.Peerings, i)
			open = open || i.Rotated.Told == "not yet" && i.Rotated.Why == ""
		}
		if !open || ctx.Err() != nil {
			return r, nil
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// noteRotation tells administrators that a peering goes on under another key.
func (g *Gateway) noteRotation(book *Book, pair Pair) {
	for _, p := range book.All() {
		if n := len(p.Changes); p.Pair == pair && n > 0 {
			c := p.Changes[n-1]
			g.c.Log.Warn("cluster key of a peering was replaced", "cluster", p.Alias, "from", c.Old, "to", c.New)
			g.c.Note(p.Other, p.Alias, "peering goes on: cluster key "+c.Old.String()+" replaced by "+c.New.String())
		}
	}
}

// rotated is the last change of key that a peering went through, nil if none.
func (g *Gateway) rotated(p *Peering) *RotatedInfo {
	n := len(p.Changes)
	if n == 0 {
		return nil
	}
	c := p.Changes[n-1]
	i := &RotatedInfo{From: c.Old, To: c.New, By: "them", At: time.Unix(c.Issued, 0).UTC(), Until: time.Unix(c.Until, 0).UTC()}
	if c.New != p.own {
		return i
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	heard := g.again[word{pair: p.Pair}]
	i.By, i.Told, i.Why = "us", "not yet", heard.why
	switch {
	case heard.heard && heard.why == "":
		i.Told = "yes"
	case heard.heard:
		i.Told = "refused"
	}
	return i
}

// movedWhy says what became of a peering whose other cluster has a new key.
func movedWhy(p *Peering) string {
	return "cluster key replaced by " + p.Moved.Short() + "; nodes under the old one are received until " + time.Unix(p.Until, 0).UTC().Format(time.DateTime)
}
