//go:build issuer || !(mips || mipsle)

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/store"
	"skywire/signal"
)

// Methods that people ask an issuer, beside those of the manager.
const (
	MethodInvite  = "manager.invite"  // InviteParams → InviteInfo
	MethodInvites = "manager.invites" // → []InviteInfo
	MethodApprove = "manager.approve" // NodeParams → MemberInfo; so do the next three
	MethodDeny    = "manager.deny"
	MethodRevoke  = "manager.revoke"
	MethodRestore = "manager.restore"
	MethodMembers = "manager.members" // MembersParams → []MemberInfo; ask again after the last one until there is none
	MethodSigner  = "manager.signer"  // → SignerInfo
)

// InviteParams says for whom an invite is.
type InviteParams struct {
	Name     string           `json:"name,omitempty"`
	Tags     []string         `json:"tags,omitempty"`
	Roles    member.Roles     `json:"roles,omitempty"`
	Uses     int              `json:"uses"`
	Seconds  int64            `json:"expires_s"`
	Contacts []member.Contact `json:"contacts,omitempty"` // the zero key is this node
}

// InviteInfo is an invite in the book. Text and QR are given once, to who made it.
type InviteInfo struct {
	ID      string   `json:"id"`
	State   string   `json:"state"` // open, used, expired, closed (by wrong proofs)
	Name    string   `json:"name"`
	Tags    []string `json:"tags"`
	Uses    int      `json:"uses"`
	Used    int      `json:"used"`
	Left    float64  `json:"expires_s"`
	Text    string   `json:"invite,omitempty"`
	QR      string   `json:"qr,omitempty"`
	Waiting int      `json:"waiting"` // for approval
}

// NodeParams names a node by key, the start of a key of a known one, name or mesh address.
type NodeParams struct {
	Node string `json:"node"`
}

// MembersParams asks for what follows After.
type MembersParams struct {
	After key.Public `json:"after,omitzero"`
}

// MemberInfo is what the cluster says of a node.
type MemberInfo struct {
	Key      key.Public `json:"key"`
	Name     string     `json:"name"`
	State    string     `json:"state"` // member, expired, revoked, pending
	Address  netip.Addr `json:"address"`
	IPv4     string     `json:"ipv4,omitempty"`
	Roles    []string   `json:"roles"`
	Tags     []string   `json:"tags"`
	Serial   uint64     `json:"serial,omitempty"`
	Issuer   key.Public `json:"issuer,omitzero"`
	Issued   time.Time  `json:"issued,omitzero"`
	NotAfter time.Time  `json:"not_after,omitzero"`
	Why      string     `json:"why,omitempty"`
	Conflict bool       `json:"name_conflict,omitempty"`
}

// SignerInfo is the key that this manager signs with, and what the admin list lets it do.
type SignerInfo struct {
	Cluster key.Public `json:"cluster"`
	Key     key.Public `json:"key"`
	Powers  []string   `json:"powers"`
	Roles   []string   `json:"roles"`
	IPv4    string     `json:"ipv4,omitempty"`
}

// Call answers people.
func (i *Issuer) Call(ctx context.Context, method string, params json.RawMessage) (any, error) {
	i.turn.Lock()
	defer i.turn.Unlock()
	if err := i.ready(ctx, 0); err != nil {
		if _, ok := errors.AsType[*signal.Error](err); ok {
			return nil, err
		}
		return nil, signal.Errorf(signal.ErrRefused, "%v", err)
	}
	i.count(i.at())
	r := &signal.Request{Params: params}
	switch method {
	case MethodInvite:
		var p InviteParams
		if err := r.Bind(&p); err != nil {
			return nil, err
		}
		return i.invite(ctx, p)
	case MethodInvites:
		return i.invites(), nil
	case MethodMembers:
		var p MembersParams
		if err := r.Bind(&p); err != nil {
			return nil, err
		}
		return i.members(p.After), nil
	case MethodSigner:
		return i.signer(), nil
	case MethodApprove, MethodDeny, MethodRevoke, MethodRestore:
	default:
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", method)
	}
	var p NodeParams
	if err := r.Bind(&p); err != nil {
		return nil, err
	}
	k, err := i.find(p.Node)
	if err != nil {
		return nil, err
	}
	return i.decide(ctx, method, k)
}

// decide does what a person decided about a node.
func (i *Issuer) decide(ctx context.Context, method string, k key.Public) (any, error) {
	at := i.at()
	p := i.pending[k]
	switch method {
	case MethodApprove, MethodDeny:
		if p == nil {
			return nil, signal.Errorf(signal.ErrNotFound, "%s does not wait for approval; see: manager members", k.Short())
		}
		if method == MethodDeny {
			info := i.info(at, k)
			if o := i.offers[p.offer]; o != nil {
				next := *o
				next.Uses = uint16(len(o.Joined)) // the invite is in hands that it was not meant for
				if err := i.commit(ctx, at, nil, &next); err != nil {
					return nil, err
				}
				*o = next
			}
			delete(i.pending, k)
			return info, nil
		}
		o := i.offers[p.offer]
		if o == nil {
			return nil, signal.Errorf(signal.ErrNotFound, "the invite of %s is gone", k.Short())
		}
		if r := i.admit(ctx, at, o, k, p.name); r.Status != member.StatusDone {
			return nil, signal.Errorf(signal.ErrRefused, "%s", r.Reason)
		}
		return i.info(at, k), nil
	}
	if err := i.revoke(ctx, at, k, method == MethodRevoke); err != nil {
		return nil, err
	}
	return i.info(at, k), nil
}

// revoke signs an entry that outranks all there are.
func (i *Issuer) revoke(ctx context.Context, at member.Instant, k key.Public, revoked bool) error {
	if k == i.c.Members.Self().Key && revoked {
		return signal.Errorf(signal.ErrRefused, "this is the node of this box: revoke it at another manager")
	}
	if i.state.Revoked(k) == revoked {
		return nil
	}
	list, _ := i.state.Admins()
	if me, _ := list.Find(i.admin.Public()); me.Powers&member.MayRevoke == 0 {
		return signal.Errorf(signal.ErrRefused, "the admin list does not let this manager revoke")
	}
	e := member.Revocation{Node: k, Revoked: revoked, N: i.state.NextRevocation(k), Issued: i.state.Stamp(at)}
	raw, err := e.Sign(i.state.Network(), i.admin)
	if err != nil {
		return err
	}
	if err := i.commit(ctx, at, [][]byte{raw}); err != nil {
		return err
	}
	if i.state.Revoked(k) != revoked {
		return signal.Errorf(signal.ErrRefused, "an entry of the highest number stands; take its admin off the list with the cluster key")
	}
	i.c.Log.Info("node judged", "peer", k, "verdict", map[bool]string{true: "revoked", false: "restored"}[revoked])
	return nil
}

// invite makes an invite and writes it into the book.
func (i *Issuer) invite(ctx context.Context, p InviteParams) (any, error) {
	at, self := i.at(), i.c.Members.Self().Key
	list, _ := i.state.Admins()
	me, ok := list.Find(i.admin.Public())
	p.Tags = member.SortTags(p.Tags)
	want := &member.Certificate{Roles: p.Roles | member.RoleMember, Tags: p.Tags, Issued: 0, NotAfter: 1}
	switch {
	case !ok || me.Powers&member.MayIssue == 0:
		return nil, signal.Errorf(signal.ErrRefused, "%v", i.unlisted())
	case !me.May(want):
		return nil, signal.Errorf(signal.ErrRefused, "the admin list does not let this manager give that; see: manager cluster show")
	case !i.state.Issuer(at, self):
		return nil, signal.Errorf(signal.ErrRefused, "the node of this box has no certificate as a manager, which joiners look for")
	case p.Name != "" && !member.ValidName(p.Name):
		return nil, signal.Errorf(signal.ErrUsage, "name %q: letters a to z, digits and inner hyphens, %d at most", p.Name, member.MaxName)
	case p.Uses < 1 || p.Uses > member.MaxUses:
		return nil, signal.Errorf(signal.ErrUsage, "uses: 1 to %d", member.MaxUses)
	case p.Seconds < 60 || p.Seconds > 366*24*3600:
		return nil, signal.Errorf(signal.ErrUsage, "expires: a minute to a year")
	case len(p.Contacts) == 0 || len(p.Contacts) > member.MaxContacts:
		return nil, signal.Errorf(signal.ErrUsage, "an invite needs 1 to %d addresses where joiners begin", member.MaxContacts)
	}
	for n, c := range p.Contacts {
		if c.Key.IsZero() {
			p.Contacts[n].Key = self
		}
	}
	v, err := member.NewInvite(i.state.Cluster(), self, p.Contacts)
	if err != nil {
		return nil, err
	}
	if _, err := member.ParseInvite(v.Text()); err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "%v", err)
	}
	life := time.Duration(p.Seconds) * time.Second
	o := &member.Offer{
		ID: v.ID, Secret: v.Secret, Name: p.Name, Roles: p.Roles, Tags: p.Tags, Uses: uint16(p.Uses), Life: life,
		Until: i.state.Stamp(at) + p.Seconds,
	}
	if err := i.makeRoom(); err != nil {
		return nil, err
	}
	if _, err := member.ParseOffer(o.Append(nil)); err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "tags: %d at most, of letters, digits and inner hyphens", member.MaxTags)
	}
	if err := i.commit(ctx, at, nil, o); err != nil {
		return nil, err
	}
	i.offers[o.ID] = o
	info := i.inviteInfo(o)
	info.Text, info.QR = v.Text(), v.QRText()
	return info, nil
}

// makeRoom forgets invites that are over once there are too many.
func (i *Issuer) makeRoom() error {
	if len(i.offers) < maxOffers {
		return nil
	}
	var over []member.InviteID
	for id, o := range i.offers {
		if o.State() != "open" {
			over = append(over, id)
		}
	}
	if len(over) == 0 {
		return signal.Errorf(signal.ErrBusy, "%d invites are open; let some expire", maxOffers)
	}
	for _, id := range over {
		delete(i.offers, id)
	}
	return i.c.Store.Batch(func(tx *store.Tx) error {
		for _, id := range over {
			tx.DeleteOffer(id)
		}
		return nil
	})
}

func (i *Issuer) invites() []InviteInfo {
	all := make([]InviteInfo, 0, len(i.offers))
	for _, o := range i.offers {
		all = append(all, i.inviteInfo(o))
	}
	sort.Slice(all, func(a, b int) bool { return all[a].ID < all[b].ID })
	return all
}

func (i *Issuer) inviteInfo(o *member.Offer) InviteInfo {
	n := InviteInfo{
		ID: fmt.Sprintf("%x", o.ID), State: o.State(), Name: o.Name, Tags: append([]string{}, o.Tags...), Uses: int(o.Uses), Used: len(o.Joined),
		Left: max(o.Life-o.Elapsed, 0).Seconds(),
	}
	for _, p := range i.pending {
		if p.offer == o.ID {
			n.Waiting++
		}
	}
	return n
}

// members is a page of all nodes that the cluster knows or that wait.
func (i *Issuer) members(after key.Public) []MemberInfo {
	at, keys := i.at(), i.state.Known()
	for k := range i.pending {
		if i.state.RawCertificate(k) == nil && !i.state.Revoked(k) {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(a, b int) bool { return keys[a].Less(keys[b]) })
	all := []MemberInfo{}
	for _, k := range keys {
		if (after.Less(k) || after.IsZero()) && len(all) < maxPage/nodeBytes {
			all = append(all, i.info(at, k))
		}
	}
	return all
}

func (i *Issuer) info(at member.Instant, k key.Public) MemberInfo {
	m := i.state.Member(at, k)
	n := MemberInfo{Key: k, Address: i.state.Network().Address(k), Why: m.Why, Roles: []string{}, Tags: []string{}}
	n.Name, n.Conflict = i.state.Name(k)
	if c := m.Certificate; c != nil {
		n.Roles, n.Tags = c.Roles.Words(), append(n.Tags, c.Tags...)
		n.Serial, n.Issuer = c.Serial, c.Admin
		n.Issued, n.NotAfter = time.Unix(c.Issued, 0).UTC(), time.Unix(c.NotAfter, 0).UTC()
		if c.IPv4.IsValid() {
			n.IPv4 = c.IPv4.String()
		}
	}
	switch {
	case m.Rights == member.None:
		n.State = "revoked"
		if m.Certificate != nil {
			n.Name = m.Certificate.Name // that it had: others may have it now
		}
	case m.Expired:
		n.State = "expired"
	case i.pending[k] != nil:
		n.State, n.Name, n.Why = "pending", i.pending[k].name, "asked at "+i.pending[k].since.UTC().Format(time.RFC3339)
	case m.Rights == member.Member:
		n.State, n.Why = "member", ""
	default:
		n.State = "guest"
	}
	return n
}

func (i *Issuer) signer() SignerInfo {
	list, _ := i.state.Admins()
	me, _ := list.Find(i.admin.Public())
	n := SignerInfo{Cluster: i.state.Cluster(), Key: i.admin.Public(), Powers: me.Powers.Words(), Roles: me.Roles.Words()}
	if me.IPv4.IsValid() {
		n.IPv4 = me.IPv4.String()
	}
	return n
}

// find opens what a person calls a node: a key, the start of one that is known, a certified name, or a mesh address.
func (i *Issuer) find(text string) (key.Public, error) {
	if k, err := key.Parse(text); err == nil {
		return k, nil
	}
	if k, _, ok := i.state.Lookup(text); ok {
		return k, nil
	}
	addr, _ := netip.ParseAddr(text)
	var found []key.Public
	for _, m := range i.members(key.Public{}) {
		if m.Address == addr {
			return m.Key, nil
		}
		if len(text) >= 4 && strings.HasPrefix(m.Key.String(), strings.ToLower(text)) || text != "" && (m.State == "pending" || m.State == "revoked") && m.Name == text {
			found = append(found, m.Key)
		}
	}
	switch len(found) {
	case 0:
		return key.Public{}, signal.Errorf(signal.ErrNotFound, "no node %q; see: manager members", text)
	case 1:
		return found[0], nil
	}
	return key.Public{}, signal.Errorf(signal.ErrUsage, "%d nodes fit %q: give more letters of the key", len(found), text)
}
