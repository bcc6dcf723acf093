package api

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// Explainer answers why things are as they are.
type Explainer interface {
	Trace(ctx context.Context, to key.Public) (Trace, error)
	Why(ctx context.Context, to key.Public) (Why, error)
	// Events returns what followed an event, waiting for the first one if there is none yet.
	Events(ctx context.Context, p EventsParams) (Events, error)
}

// Trace is node.trace.
type Trace struct {
	Hops []Hop `json:"hops"`
}

// Hop is one step of a trace: the round trip from here, and what the two ends of the link to it say of that link, at the worse.
type Hop struct {
	Key      key.Public `json:"key"`
	Name     string     `json:"name,omitempty"`
	RTT      *float64   `json:"rtt_ms"` // from here; null: no answer
	LinkRTT  *float64   `json:"link_rtt_ms"`
	Jitter   float64    `json:"jitter_ms"` // of the link
	Loss     float64    `json:"loss"`      // of the link, in its worse direction
	Capacity uint64     `json:"capacity_kbit_s"`
	Carrier  string     `json:"carrier"`
	MTU      int        `json:"mtu"`
	UpS      float64    `json:"up_s"` // of the link, at least
}

// Why is node.why: the paths that were considered, the one in use first, each with what speaks for or against it.
type Why struct {
	Key     key.Public `json:"key"`
	Name    string     `json:"name,omitempty"`
	Summary string     `json:"summary"`
	InUse   *InUse     `json:"in_use"` // null: no path is in use
	Direct  string     `json:"direct"` // why there is or is not a direct link
	Tried   []Tried    `json:"tried"`  // to link directly
	NAT     NATPair    `json:"nat"`
	Notes   []string   `json:"notes"` // what else is remarkable
	// Paths are the candidates.
	Paths []WhyChoice `json:"paths"`
}

// InUse is the path that carries what we send.
type InUse struct {
	Hops   []key.Public `json:"hops"`
	Names  []string     `json:"names"` // beside the hops
	SinceS float64      `json:"since_s"`
	Cause  string       `json:"cause"`  // why it was chosen then
	SetUp  string       `json:"set_up"` // by us or by the other side
	RTT    float64      `json:"rtt_ms"` // as measured end to end
	Loss   float64      `json:"loss"`   // of what we send, as the other side reports
	MTU    int          `json:"mtu"`
}

// Tried is one try to reach the node directly.
type Tried struct {
	AgoS    float64 `json:"ago_s"`
	Carrier string  `json:"carrier"`
	Address string  `json:"address"`
	Way     string  `json:"way"`
	Result  string  `json:"result"`
	Open    bool    `json:"open"`
}

// NATPair is what is between each end and the network, in words.
type NATPair struct {
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
}

// WhyChoice is one candidate.
type WhyChoice struct {
	Hops     []key.Public `json:"hops"`
	Names    []string     `json:"names"`
	RTT      float64      `json:"rtt_ms"` // by the records
	Loss     float64      `json:"loss"`
	Capacity uint64       `json:"capacity_kbit_s"`
	Cost     float64      `json:"cost"` // ms of round trip, with all else that counts weighed in
	State    string       `json:"state"`
	Used     bool         `json:"used"`
	Reason   string       `json:"reason"`
}

// Event is one change and its cause, one element of node.events.
type Event struct {
	Seq   uint64       `json:"seq"`
	Time  time.Time    `json:"time"`
	Kind  string       `json:"kind"`
	Peer  *key.Public  `json:"peer,omitempty"`
	Name  string       `json:"name,omitempty"` // of the peer
	Hops  []key.Public `json:"hops,omitempty"`
	Names []string     `json:"names,omitempty"`
	What  string       `json:"what,omitempty"`
	Cause string       `json:"cause,omitempty"`
}

// EventsParams asks for what followed the event After; 0: for the last ones.
type EventsParams struct {
	After uint64  `json:"after,omitempty"`
	Limit int     `json:"limit,omitempty"`  // 0: 100, at most MaxEvents
	WaitS float64 `json:"wait_s,omitempty"` // how long to wait for the first one, at most MaxEventWait
}

// Events is node.events; Next is what to ask After the next time.
type Events struct {
	Events []Event `json:"events"`
	Next   uint64  `json:"next"`
	Missed uint64  `json:"missed"` // that happened after After and are no longer held
}

// Bounds of node.events.
const (
	MaxEvents    = 256
	MaxEventWait = 30 * time.Second
)

func (s *Server) events(ctx context.Context, c *call) (any, error) {
	var p EventsParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	if p.Limit < 0 || p.Limit > MaxEvents || p.WaitS < 0 || p.WaitS > MaxEventWait.Seconds() {
		return nil, signal.Errorf(signal.ErrUsage, "node.events: at most %d events and a wait of %.0f s", MaxEvents, MaxEventWait.Seconds())
	}
	if p.Limit == 0 {
		p.Limit = 100
	}
	if p.WaitS > 0 {
		wait, cancel := context.WithTimeout(ctx, time.Duration(p.WaitS*float64(time.Second)))
		defer cancel()
		all, err := s.node.Events(wait, p)
		if err == nil || ctx.Err() != nil {
			return all, err
		}
		p.WaitS = 0 // nothing happened: say from where to go on
	}
	return s.node.Events(ctx, p)
}
