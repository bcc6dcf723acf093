package peering

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// What people ask and tell, over the socket of the program that runs the gateway.

// Terms are what one side gives, in words.
type Terms struct {
	Exports   []string `json:"exports,omitempty"` // see ParseExport
	Messaging string   `json:"messaging,omitempty"`
	Verbs     []string `json:"verbs,omitempty"`
	Nodes     uint16   `json:"nodes,omitempty"`
	Rate      uint64   `json:"rate_bytes_per_second,omitempty"`
	Quota     uint64   `json:"quota_bytes_per_30_days,omitempty"`
}

// InviteParams is peer.invite.
type InviteParams struct {
	Name     string   `json:"name,omitempty"` // how our cluster is called
	Gates    []string `json:"gates,omitempty"`
	Gives    Terms    `json:"gives"`
	Asks     Terms    `json:"asks"`
	ExpiresS int64    `json:"expires_s,omitempty"` // of the invite; 0: 7 days
	LastsS   int64    `json:"lasts_s,omitempty"`   // of the peering; 0: no end
	Confirm  bool     `json:"confirm,omitempty"`
}

// InviteResult is what peer.invite answers.
type InviteResult struct {
	Invite string `json:"invite"`
	InviteInfo
}

// InviteInfo is an invite for people.
type InviteInfo struct {
	ID      string     `json:"id"`
	State   string     `json:"state"` // open, pending, used, expired
	Cluster key.Public `json:"cluster"`
	Admin   key.Public `json:"admin"`
	Name    string     `json:"name"`
	Gives   GrantInfo  `json:"gives"`
	Asks    GrantInfo  `json:"asks"`
	Expires time.Time  `json:"expires"`
	Until   time.Time  `json:"until,omitzero"`
	// Number is what both administrators compare by voice; of an invite of our own it is known when somebody takes it.
	Number string     `json:"safety_number,omitempty"`
	By     key.Public `json:"taken_by,omitzero"`
}

// GrantInfo is a grant for people.
type GrantInfo struct {
	Exports   []ExportInfo `json:"exports"`
	Messaging string       `json:"messaging"`
	Verbs     []string     `json:"verbs"`
	Nodes     uint16       `json:"nodes,omitempty"`
	Rate      uint64       `json:"rate_bytes_per_second,omitempty"`
	Quota     uint64       `json:"quota_bytes_per_30_days,omitempty"`
}

// ExportInfo is an export for people.
type ExportInfo struct {
	Name string `json:"name"`
	Type string `json:"type"`
	To   string `json:"to"`
	Port uint16 `json:"port,omitempty"`
}

// PeeringInfo is a peering for people.
type PeeringInfo struct {
	Name    string     `json:"name"`
	Cluster key.Public `json:"cluster"`
	State   string     `json:"state"` // in force, revoked, expired, suspended, replaced
	Why     string     `json:"why,omitempty"`
	Number  uint64     `json:"number"`
	Signed  time.Time  `json:"signed,omitzero"`
	Expires time.Time  `json:"expires,omitzero"`
	Admins  struct {
		Ours   key.Public `json:"ours,omitzero"`
		Theirs key.Public `json:"theirs,omitzero"`
	} `json:"admins"`
	Gives    GrantInfo  `json:"gives"`
	Gets     GrantInfo  `json:"gets"`
	Services []string   `json:"services"` // as they are called here
	Gates    []string   `json:"gates"`
	Allow    []string   `json:"allow,omitempty"`
	Visitors int        `json:"visitors"`
	Streams  int        `json:"streams"`
	Used     uint64     `json:"used_bytes"`
	Number60 string     `json:"safety_number"`
	By       key.Public `json:"revoked_by,omitzero"`
	// Rotated is the last change of a cluster key.
	Rotated *RotatedInfo `json:"rotated,omitempty"`
}

// AcceptParams is peer.look and peer.accept.
type AcceptParams struct {
	Invite string   `json:"invite"`
	Name   string   `json:"name,omitempty"`  // how our cluster is called
	Alias  string   `json:"alias,omitempty"` // how we call the other one
	Gates  []string `json:"gates,omitempty"`
	Allow  []string `json:"allow,omitempty"`
}

// PeerParams name a peering, or an invite by its id.
type PeerParams struct {
	Peer  string   `json:"peer"`
	Alias string   `json:"alias,omitempty"`
	Allow []string `json:"allow,omitempty"`
}

// AcceptResult is peer.accept.
type AcceptResult struct {
	State   string       `json:"state"` // done, pending
	Peering *PeeringInfo `json:"peering,omitempty"`
}

// ListResult is peer.list.
type ListResult struct {
	Cluster  key.Public    `json:"cluster"`
	Peerings []PeeringInfo `json:"peerings"`
	Invites  []InviteInfo  `json:"invites"`
	// Suggested are clusters that peered ones introduce.
	Suggested []SuggestionInfo `json:"suggested"`
}

// Methods are the methods of the socket.
func (g *Gateway) Methods() map[string]func(ctx context.Context, params json.RawMessage) (any, error) {
	return map[string]func(ctx context.Context, params json.RawMessage) (any, error){
		"peer.invite":    method(g.methodInvite),
		"peer.look":      method(g.methodLook),
		"peer.accept":    method(g.methodAccept),
		"peer.confirm":   method(g.methodConfirm),
		"peer.list":      func(context.Context, json.RawMessage) (any, error) { return g.methodList() },
		"peer.show":      method(g.methodShow),
		"peer.revoke":    method(g.methodRevoke),
		"peer.withdraw":  method(g.methodWithdraw),
		"peer.set":       method(g.methodSet),
		"peer.introduce": method(g.methodIntroduce),
		"peer.dismiss":   method(g.methodDismiss),
		"peer.rotation":  method(g.methodRotation),
		"peer.rotate":    method(g.methodRotate),
	}
}

func method[P any](f func(ctx context.Context, p P) (any, error)) func(ctx context.Context, params json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var p P
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "parameters: %v", err)
		}
		return f(ctx, p)
	}
}

func usage(err error) error { return signal.Errorf(signal.ErrUsage, "%v", err) }

// beside returns what the methods need of the present.
func (g *Gateway) beside() (*Book, *app.Client, ownCluster, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.book == nil || g.home == nil {
		return nil, nil, ownCluster{}, errNoCluster
	}
	return g.book, g.home, g.own, nil
}

// admin returns the key that signs here, if the list lets it.
func (g *Gateway) admin(own ownCluster, powers member.Powers) (*key.Private, error) {
	k, err := g.c.Admin()
	if err != nil {
		return nil, errNoAdmin
	}
	if own.state.Powers(k.Public())&powers == 0 {
		return nil, signal.Errorf(signal.ErrRefused, "the admin key of this box (%s) is not on the cluster's list of those who may (skywire manager cluster sign-admin)", k.Public().Short())
	}
	return k, nil
}

func (g *Gateway) methodInvite(ctx context.Context, p InviteParams) (any, error) {
	book, home, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	admin, err := g.admin(own, member.MayIssue)
	if err != nil {
		return nil, err
	}
	now := g.now()
	v := Invite{Node: home.Self().Key, Expires: now + orDefault(p.ExpiresS, 7*24*3600)}
	if p.LastsS > 0 {
		v.Until = now + p.LastsS
	}
	v.Offer = Side{Cluster: own.cluster, Admin: admin.Public(), Name: p.Name}
	if v.Offer.Name == "" {
		v.Offer.Name = clusterName(own.cluster)
	}
	if v.Offer.Gates, err = g.gates(ctx, home, p.Gates); err != nil {
		return nil, err
	}
	if v.Offer.Gives, err = g.grant(ctx, home, p.Gives, false); err != nil {
		return nil, err
	}
	if v.Asks, err = g.grant(ctx, home, p.Asks, true); err != nil {
		return nil, err
	}
	made, err := NewInvite(v)
	if err != nil {
		return nil, err
	}
	text, err := made.Text(admin)
	if err != nil {
		return nil, usage(err)
	}
	if err := book.Offer(text, p.Confirm, now); err != nil {
		return nil, err
	}
	return InviteResult{Invite: text, InviteInfo: g.inviteInfo(Offered{Invite: made}, now)}, nil
}

func orDefault(v, d int64) int64 {
	if v <= 0 {
		return d
	}
	return v
}

// clusterName is what a cluster is called that says nothing of itself.
func clusterName(k key.Public) string { return "c-" + k.Short() }

func (g *Gateway) methodLook(_ context.Context, p AcceptParams) (any, error) {
	_, _, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	v, err := ParseInvite(p.Invite)
	if err != nil {
		return nil, usage(err)
	}
	i := g.inviteInfo(Offered{Invite: v}, g.now())
	i.Number = envelope.SafetyNumber(own.cluster, v.Offer.Cluster)
	return i, nil
}

func (g *Gateway) methodSet(_ context.Context, p PeerParams) (any, error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	v, err := book.Find(p.Peer)
	if err == nil {
		err = book.SetLocal(v.Other, p.Alias, p.Allow)
	}
	if err != nil {
		return nil, err
	}
	g.kick()
	v, _ = book.With(v.Other)
	return g.info(&v), nil
}

func (g *Gateway) methodWithdraw(_ context.Context, p PeerParams) (any, error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	id, err := inviteID(p.Peer)
	if err != nil {
		return nil, err
	}
	switch was, err := book.Withdraw(id); {
	case err != nil:
		return nil, err
	case !was:
		return nil, signal.Errorf(signal.ErrNotFound, "no such invite (skywire messenger peer list)")
	}
	return struct{}{}, nil
}

func inviteID(word string) (id InviteID, err error) {
	b, err := hex.DecodeString(word)
	if err != nil || len(b) != len(id) {
		return id, signal.Errorf(signal.ErrUsage, "%q is no id of an invite", word)
	}
	return InviteID(b), nil
}

// methodRevoke ends a peering: here at once, at the other gateways as soon as they hear of it.
func (g *Gateway) methodRevoke(ctx context.Context, p PeerParams) (any, error) {
	book, _, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	v, err := book.Find(p.Peer)
	if err != nil {
		return nil, err
	}
	if v.Record == nil || !v.InForce(0) {
		return nil, signal.Errorf(signal.ErrNotFound, "the peering with %s is over already", v.Alias)
	}
	admin, err := g.admin(own, member.MayIssue|member.MayRevoke)
	if err != nil {
		return nil, err
	}
	end := End{Low: v.Record.Sides[0].Cluster, High: v.Record.Sides[1].Cluster, Seq: v.Record.Seq, Issued: g.now(), By: own.cluster, List: own.list}
	raw, err := end.Sign(admin)
	if err != nil {
		return nil, err
	}
	if err := g.put(ctx, raw, true); err != nil {
		return nil, err
	}
	v, _ = book.With(v.Other)
	return g.info(&v), nil
}

// methodConfirm signs a record that waits for a person.
func (g *Gateway) methodConfirm(ctx context.Context, p PeerParams) (any, error) {
	book, _, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	if _, err := g.admin(own, member.MayIssue); err != nil {
		return nil, err
	}
	for _, o := range book.Offers() {
		if o.Pending == nil || o.Done {
			continue
		}
		_, other, ok := o.Pending.Of(own.cluster)
		if !ok || hex.EncodeToString(o.ID[:]) != p.Peer && other.Cluster.String() != p.Peer && other.Name != p.Peer {
			continue
		}
		_, enforce, err := g.countersign(ctx, book, o.ID, o.Pending)
		if err != nil {
			return nil, err
		}
		enforce()
		v, _ := book.With(other.Cluster)
		return g.info(&v), nil
	}
	return nil, signal.Errorf(signal.ErrNotFound, "nothing waits for a word about %s (skywire messenger peer list)", p.Peer)
}
