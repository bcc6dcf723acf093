package vpn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/tun/netcfg"
)

// Accepted is a network behind other nodes that this box uses. Several servers of one network are a group: the first that
// answers carries it.
type Accepted struct {
	Prefix  netip.Prefix
	Servers []string // NODE, the preferred first
}

// Times of accepted subnets. A server is away when wayLost probes in a row do not come back: 2 to 4 s.
const (
	wayEvery  = time.Second
	wayWithin = time.Second
	wayLost   = 3
	// returnAfter is how long a preferred server answers before it carries its networks again, so that one that comes and
	// goes does not take connections along each time.
	returnAfter = 10 * time.Second
	// localEvery is how often this box's own networks are looked at: one it joins may be one that is accepted.
	localEvery = 10
)

// groupSubnets is the group of changes for what servers lease; a network's route has a group of its own.
const groupSubnets = "subnets"

// subnets is the state of the accepted networks.
type subnets struct {
	a *App

	mu       sync.Mutex // guards the fields below; taken before App.mu
	ways     []*way
	networks []*network
	told     app.Policy
}

// way is a server of accepted networks.
type way struct {
	name   string
	key    key.Public
	answer Answer // the last one; its lease stands until another comes
	leased bool   // the stream is open
	up     bool   // probes come back
	since  time.Time
	rtt    time.Duration
	why    string // it is not up
}

// network is an accepted prefix.
type network struct {
	Accepted
	ways    []*way // in the order of Servers
	active  *way
	source  netip.Addr // of its route; invalid: there is none
	refused string
}

func (a *App) newSubnets(list []Accepted) *subnets {
	s := &subnets{a: a}
	for _, c := range list {
		n := &network{Accepted: c}
		for _, name := range c.Servers {
			i := slices.IndexFunc(s.ways, func(w *way) bool { return w.name == name })
			if i < 0 {
				i = len(s.ways)
				s.ways = append(s.ways, &way{name: name, why: "not asked yet"})
			}
			n.ways = append(n.ways, s.ways[i])
		}
		for _, o := range s.networks {
			if o.refused == "" && o.Prefix.Overlaps(n.Prefix) {
				n.refused = fmt.Sprintf("it overlaps %s, which is accepted already", o.Prefix)
			}
		}
		s.networks = append(s.networks, n)
	}
	return s
}

// validateAccepted joins the servers of equal prefixes.
func validateAccepted(list []Accepted) ([]Accepted, error) {
	var out []Accepted
	for _, c := range list {
		if !c.Prefix.IsValid() || c.Prefix.Bits() == 0 || c.Prefix.Addr().Is4In6() || len(c.Servers) == 0 {
			return nil, fmt.Errorf("accepted subnet %s of %v: want a prefix longer than /0 and a node", c.Prefix, c.Servers)
		}
		c.Prefix = c.Prefix.Masked()
		if i := slices.IndexFunc(out, func(o Accepted) bool { return o.Prefix == c.Prefix }); i >= 0 {
			for _, name := range c.Servers {
				if !slices.Contains(out[i].Servers, name) {
					out[i].Servers = append(slices.Clone(out[i].Servers), name)
				}
			}
			continue
		}
		out = append(out, c)
	}
	return out, nil
}

// run keeps leases of all servers and the networks with those that answer.
func (s *subnets) run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, w := range s.ways {
		all.Go(func() { s.follow(ctx, w) })
	}
	for tick := 0; ; tick++ {
		if err := s.settle(ctx, time.Now(), tick%localEvery == 0); err != nil && ctx.Err() == nil {
			s.a.log.Warn("accepted subnets not settled", "err", err)
		}
		if !pause(ctx, wayEvery) {
			return nil
		}
	}
}

// follow keeps one server's lease.
func (s *subnets) follow(ctx context.Context, w *way) {
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryMost) {
		began := time.Now()
		err := s.session(ctx, w)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		was := w.up
		w.leased, w.up, w.why = false, false, err.Error()
		s.mu.Unlock()
		s.a.log.Info("server of accepted subnets is away", "name", w.name, "err", err)
		if was {
			_ = s.settle(ctx, time.Now(), false) // at once; what goes wrong the next one says
		}
		if time.Since(began) > retryMost {
			wait = retryFirst
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// session runs from the question to the end of the lease, and always ends with an error.
func (s *subnets) session(ctx context.Context, w *way) error {
	k, stream, ans, err := s.ask(ctx, w.name)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := s.lease(ctx, w, k, ans); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	ended := make(chan struct{})
	go func() { // ends when the stream is closed, which happens below
		defer close(ended)
		_, err := io.Copy(io.Discard, stream)
		cancel(errors.Join(errors.New("the server ended the lease"), err))
	}()
	s.watch(ctx, w)
	err = context.Cause(ctx)
	stream.Close()
	<-ended
	return err
}

// ask opens the stream that is a lease.
func (s *subnets) ask(ctx context.Context, name string) (key.Public, io.ReadCloser, Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	k, err := s.a.node.Resolve(ctx, name)
	if err != nil {
		return k, nil, Answer{}, fmt.Errorf("server %s: %w", name, err)
	}
	header, err := Request{Version: Version}.Append(nil)
	if err != nil {
		return k, nil, Answer{}, err
	}
	stream, reply, err := s.a.node.Dial(ctx, k, Service, header)
	if err != nil {
		return k, nil, Answer{}, err
	}
	ans, err := ParseAnswer(reply)
	if err != nil {
		stream.Close()
	}
	return k, stream, ans, err
}

// lease takes what a server gave: the address, the way to its gateway, and in the node what goes with them.
func (s *subnets) lease(ctx context.Context, w *way, k key.Public, ans Answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.a
	a.mu.Lock()
	err := a.net.Address(groupSubnets, host(ans.IPv4))
	if err == nil && (w.answer.Gateway != ans.Gateway || w.answer.IPv4 != ans.IPv4) {
		err = a.net.Route(groupSubnets, netcfg.Route{Prefix: host(ans.Gateway), Source: ans.IPv4})
		if errors.Is(err, netcfg.ErrRouteExists) {
			err = nil // of the client role, or an earlier lease
		}
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	w.key, w.answer, w.leased, w.why = k, ans, true, "not proven yet"
	return s.tell(ctx)
}

// watch probes a server until ctx ends.
func (s *subnets) watch(ctx context.Context, w *way) {
	lost := wayLost // until the first comes back
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, wayWithin)
		rtt, err := echo(within, w.answer.IPv4, w.answer.Gateway)
		if errors.Is(err, errEchoRights) {
			rtt, err = s.a.node.Ping(within, w.key)
		}
		cancel()
		s.mu.Lock()
		was := w.up
		if err == nil {
			lost, w.rtt, w.why = 0, rtt, ""
			if w.up = true; !was {
				w.since = time.Now()
			}
		} else if lost++; lost >= wayLost {
			w.up, w.why = false, "no answer through the tunnel"
		}
		now, why := w.up, w.why
		s.mu.Unlock()
		if was != now {
			s.a.log.Info("server of accepted subnets went or came", "name", w.name, "reason", why)
			_ = s.settle(ctx, time.Now(), false) // at once; what goes wrong the next one says
		}
		if err == nil && !pause(ctx, wayEvery) {
			return
		}
		if err != nil && !pause(ctx, wayEvery/4) { // an error may come sooner than its time is over
			return
		}
	}
}

// settle chooses who carries what, and makes box and node agree.
func (s *subnets) settle(ctx context.Context, now time.Time, look bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if look {
		if err := s.lookAround(); err != nil {
			return err
		}
	}
	var errs []error
	for _, n := range s.networks {
		if n.refused != "" {
			n.active = nil
			errs = append(errs, s.route(n, netip.Addr{}))
			continue
		}
		best := n.choose(now)
		if best == nil {
			continue // the route stays: rather nowhere than elsewhere
		}
		if best != n.active {
			s.a.log.Info("subnet goes through", "subnet", n.Prefix, "name", best.name, "peer", best.key.Short())
		}
		n.active = best
		source := best.answer.IPv4
		if n.Prefix.Addr().Is6() {
			source = s.a.node.Self().Address
		}
		if err := s.route(n, source); err != nil {
			n.active = nil
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.tell(ctx))...)
}

// choose says which server is to carry a network: the one that does, unless a preferred one has answered for a while.
func (n *network) choose(now time.Time) *way {
	good := func(w *way) bool { return w.up && slices.Contains(w.answer.Subnets, n.Prefix) }
	for _, w := range n.ways {
		switch {
		case w == n.active && good(w):
			return w
		case good(w) && (n.active == nil || !good(n.active) || now.Sub(w.since) >= returnAfter):
			return w
		}
	}
	return nil
}

// lookAround refuses networks that lie in one this box is on, and takes others back in.
func (s *subnets) lookAround() error {
	local, err := netcfg.LocalPrefixes(s.a.c.Device)
	if err != nil {
		return fmt.Errorf("own networks: %w", err)
	}
	const mark = "this box is on "
	for _, n := range s.networks {
		if n.refused != "" && !strings.HasPrefix(n.refused, mark) {
			continue
		}
		n.refused = ""
		if n.Prefix.Overlaps(s.a.node.Self().Prefix) {
			n.refused = "it is the mesh's own"
		}
		for _, l := range local {
			if within(n.Prefix, []netip.Prefix{l}) {
				n.refused = mark + l.String()
			}
		}
	}
	return nil
}

// route makes the box's route of a network; no source: takes it back.
func (s *subnets) route(n *network, source netip.Addr) error {
	if source == n.source {
		return nil
	}
	a := s.a
	a.mu.Lock()
	defer a.mu.Unlock()
	group := groupSubnets + " " + n.Prefix.String()
	if n.source.IsValid() {
		if err := a.net.Undo(group); err != nil {
			return err
		}
		n.source = netip.Addr{}
	}
	if !source.IsValid() {
		return nil
	}
	if err := a.net.Route(group, netcfg.Route{Prefix: n.Prefix, Source: source}); err != nil {
		return fmt.Errorf("subnet %s: %w", n.Prefix, err)
	}
	n.source = source
	return nil
}

// tell gives node and status what holds now. The caller holds mu.
func (s *subnets) tell(ctx context.Context) error {
	var p app.Policy
	for _, w := range s.ways {
		if !w.answer.IPv4.IsValid() {
			continue
		}
		gateway := app.Rule{Prefix: host(w.answer.Gateway), Key: w.key}
		p.Routes = append(p.Routes, gateway)
		p.Grants = append(p.Grants, gateway)
		p.Serve = append(p.Serve, app.Rule{Prefix: host(w.answer.IPv4), Key: w.key})
		for _, n := range s.networks {
			if n.refused == "" && slices.Contains(n.ways, w) && slices.Contains(w.answer.Subnets, n.Prefix) {
				p.Grants = append(p.Grants, app.Rule{Prefix: n.Prefix, Key: w.key}) // answers may still come by the former one
			}
		}
	}
	for _, n := range s.networks {
		if n.active != nil {
			p.Routes = append(p.Routes, app.Rule{Prefix: n.Prefix, Key: n.active.key})
		}
	}
	s.show()
	if slices.Equal(p.Routes, s.told.Routes) && slices.Equal(p.Grants, s.told.Grants) && slices.Equal(p.Serve, s.told.Serve) {
		return nil
	}
	if err := s.a.setPolicy(ctx, asSubnets, p); err != nil {
		return err
	}
	s.told = p
	return nil
}

// AcceptedStatus is what became of an accepted subnet.
type AcceptedStatus struct {
	Prefix  netip.Prefix `json:"prefix"`
	Through string       `json:"through,omitempty"` // name of the server that carries it
	Refused string       `json:"refused,omitempty"` // why it is not taken
	Servers []WayStatus  `json:"servers"`
}

// WayStatus is one server of an accepted subnet.
type WayStatus struct {
	Name   string    `json:"name"`
	Key    string    `json:"key,omitempty"`
	Up     bool      `json:"up"`
	Offers bool      `json:"offers"` // the subnet
	Since  time.Time `json:"since,omitzero"`
	RTT    float64   `json:"rtt_ms,omitempty"`
	Why    string    `json:"why,omitempty"` // it is not up, or of no use
}

func (s *subnets) show() {
	list := make([]AcceptedStatus, 0, len(s.networks))
	for _, n := range s.networks {
		st := AcceptedStatus{Prefix: n.Prefix, Refused: n.refused}
		if n.active != nil && n.active.up {
			st.Through = n.active.name
		}
		for _, w := range n.ways {
			ws := WayStatus{Name: w.name, Up: w.up, Offers: slices.Contains(w.answer.Subnets, n.Prefix), Why: w.why}
			if w.key != (key.Public{}) {
				ws.Key = w.key.String()
			}
			if w.up {
				ws.Since, ws.RTT = w.since, float64(w.rtt.Microseconds())/1000
				if !ws.Offers {
					ws.Why = "it does not offer this subnet to us"
				}
			}
			st.Servers = append(st.Servers, ws)
		}
		list = append(list, st)
	}
	s.a.update(func(st *Status) { st.Accepted = list })
}
