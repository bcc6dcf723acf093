package api

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// Clusters is the part of Node that deals with membership.
type Clusters interface {
	// Membership says where the node belongs, and how it stands there.
	Membership(ctx context.Context) (Membership, error)
	// Join begins to join by an invite; Membership tells what becomes of it. The node leaves its present network.
	Join(ctx context.Context, invite string) error
	// Adopt makes the node one of a cluster whose statements about it are at hand: its certificate among them.
	Adopt(ctx context.Context, cluster key.Public, statements [][]byte) error
	// PutStatements takes signed statements of the cluster; news goes to all neighbours at once.
	PutStatements(ctx context.Context, raws [][]byte) (StatementsResult, error)
	// Statements are a page of those held, in the order in which they can be taken.
	Statements(ctx context.Context, after []byte, most int) (StatementsPage, error)
	// Vouch lifts the limits of a guest's path to this node; a life of 0 shuts the guest out.
	Vouch(ctx context.Context, guest key.Public, rate uint64, life time.Duration) error
	// Leave makes the node what its flags say: open, or with a static list.
	Leave(ctx context.Context) error
}

// Membership is member.status.
type Membership struct {
	Mode        string           `json:"mode"`              // cluster, static or open
	Cluster     string           `json:"cluster,omitempty"` // key
	Network     key.NetworkID    `json:"network"`
	State       string           `json:"state"` // member, guest, joining, pending, refused, none
	Why         string           `json:"why,omitempty"`
	Certificate *CertificateInfo `json:"certificate,omitempty"`
	Floor       time.Time        `json:"floor,omitzero"` // it is that time at least
	Clock       string           `json:"clock,omitempty"`
	Members     int              `json:"members"`
	Guests      int              `json:"guests"` // neighbours that are not admitted
	Conflicts   []string         `json:"name_conflicts,omitempty"`
}

// CertificateInfo is a certificate in words.
type CertificateInfo struct {
	Name     string     `json:"name"`
	Roles    []string   `json:"roles"`
	Tags     []string   `json:"tags"`
	IPv4     string     `json:"ipv4,omitempty"`
	Serial   uint64     `json:"serial"`
	Issuer   key.Public `json:"issuer"`
	Issued   time.Time  `json:"issued"`
	NotAfter time.Time  `json:"not_after"`
	Renew    time.Time  `json:"renew"` // from when on it is renewed
}

// InviteParams is member.join.
type InviteParams struct {
	Invite string `json:"invite"`
}

// AdoptParams is member.adopt.
type AdoptParams struct {
	Cluster    key.Public `json:"cluster"`
	Statements [][]byte   `json:"statements"`
}

// StatementsParams is member.put.
type StatementsParams struct {
	Statements [][]byte `json:"statements"`
}

// StatementsResult is what member.put did.
type StatementsResult struct {
	News    int      `json:"news"`              // the others were held, or older than what is held
	Refused []string `json:"refused,omitempty"` // why, of those that were not taken
}

// AfterParams is member.list: after the statement that Next named, or from the first one.
type AfterParams struct {
	After []byte `json:"after,omitempty"`
}

// StatementsPage is a page of statements; ask again with Next until there are none.
type StatementsPage struct {
	Cluster    key.Public `json:"cluster,omitzero"`
	Statements [][]byte   `json:"statements"`
	Next       []byte     `json:"next,omitempty"`
}

// VouchParams is node.vouch: what an app that knows who a guest is says for it.
type VouchParams struct {
	Key     key.Public `json:"key"`
	Rate    uint64     `json:"rate,omitempty"` // bytes a second towards this node, about; 0: no limit
	Seconds float64    `json:"seconds"`        // at most an hour; 0: the guest is shut out at once
}

// maxPut bounds the statements of one member.put or member.adopt.
const maxPut = 256

// memberTable is the methods of membership.
func (s *Server) memberTable() map[string]method {
	return map[string]method{
		"member.status": {anyone, get(s.node.Membership)},
		"member.list":   {anyone, s.memberList},
		"member.join":   {operator, s.memberJoin},
		"member.adopt":  {operator, s.memberAdopt},
		"member.put":    {operator, s.memberPut},
		"node.vouch":    {operator, s.vouch},
		"member.leave": {operator, func(ctx context.Context, _ *call) (any, error) {
			return struct{}{}, s.node.Leave(ctx)
		}},
	}
}

func (s *Server) memberJoin(ctx context.Context, c *call) (any, error) {
	var p InviteParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return struct{}{}, s.node.Join(ctx, p.Invite)
}

func (s *Server) memberAdopt(ctx context.Context, c *call) (any, error) {
	var p AdoptParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	if p.Cluster.IsZero() || len(p.Statements) > maxPut {
		return nil, signal.Errorf(signal.ErrUsage, "member.adopt: no cluster key, or more than %d statements", maxPut)
	}
	return struct{}{}, s.node.Adopt(ctx, p.Cluster, p.Statements)
}

func (s *Server) memberPut(ctx context.Context, c *call) (any, error) {
	var p StatementsParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	if len(p.Statements) > maxPut {
		return nil, signal.Errorf(signal.ErrUsage, "member.put: more than %d statements", maxPut)
	}
	return s.node.PutStatements(ctx, p.Statements)
}

func (s *Server) vouch(ctx context.Context, c *call) (any, error) {
	var p VouchParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return struct{}{}, s.node.Vouch(ctx, p.Key, p.Rate, time.Duration(min(max(p.Seconds, 0), 24*3600)*float64(time.Second)))
}

func (s *Server) memberList(ctx context.Context, c *call) (any, error) {
	var p AfterParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return s.node.Statements(ctx, p.After, maxPage/2) // base64
}
