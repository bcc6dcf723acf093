// Package publish brings programs behind one node to programs beside another: Publisher offers what listens on a box to
// chosen nodes, Forwarder listens for local programs, Finder tells what a name such as web.alice.mesh means.
//
// It carries nothing itself where it can: connections are handed to the node, which moves the bytes; those that come by the
// vpn are spliced by the kernel. It opens no port of the box but those that were named, and it is no firewall: a program
// that listens on all addresses itself is reachable by the vpn without it.
//
// Who may use a service is decided three times: by the node for streams and flows (the allow list of the registration, with
// the key that the connection has proved); here for connections by the vpn, where the node has checked that an inner source
// address belongs to the session it came by, so that the address stands for the key; and again for all of them when a grant
// or a membership ends.
//
// Rules: the lock of a type guards its maps, and is never held across I/O.
package publish

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

const (
	// acceptors is how many streams of a service may be in the moment between being accepted and having a goroutine.
	acceptors = 2
	// maxPublished bounds the connections of all services together.
	maxPublished = 2048
	// backendDial bounds the wait for the program behind a service.
	backendDial = 10 * time.Second
	// again is the wait after something that failed and will be tried again.
	again = 500 * time.Millisecond
	// statusEvery is how old the state that is shown may be.
	statusEvery = 2 * time.Second
)

// PublisherNode is what a Publisher needs of the node; *app.Client has it.
type PublisherNode interface {
	Self() app.Info
	Register(ctx context.Context, r app.Registration) error
	Accept(ctx context.Context, service string) (*app.Incoming, error)
	Whois(ctx context.Context, name string) (app.Identity, error)
	MembersChanged(ctx context.Context, after uint64) (next uint64, changed bool, err error)
	Status(v any) error
}

// PublisherConfig configures a Publisher.
type PublisherConfig struct {
	Node  PublisherNode
	Name  string // of the app beside its node
	Kind  string
	Specs []Spec
	// Allow has the words of app.Service.Allow for each service, by name.
	Allow map[string][]string
	// ProxyHeader puts a header of the PROXY protocol, version 2, before the bytes of each TCP connection.
	ProxyHeader bool
	// NoVPN: not at the mesh address.
	NoVPN bool
	Log   *slog.Logger
}

// service is one that is published.
type service struct {
	name            string
	port            uint16
	stream, packets *Spec // nil: none

	connections    atomic.Int64
	made, failed   atomic.Uint64
	refused        atomic.Uint64
	sent, received atomic.Uint64
	fault          atomic.Pointer[string]
	atMesh         atomic.Int32 // listeners at mesh addresses
}

// Publisher offers services.
type Publisher struct {
	c        PublisherConfig
	services []*service
	all      atomic.Int64 // connections

	change sync.Mutex // serialises Grant and Revoke; taken before mu

	mu    sync.Mutex // guards the fields below
	allow map[string][]string
	live  map[*meshConn]struct{}
}

// ServiceStatus is what a Publisher publishes of each service.
type ServiceStatus struct {
	Name        string   `json:"name"`
	Port        uint16   `json:"port"`
	Type        string   `json:"type"`
	To          []string `json:"to"`
	Allow       []string `json:"allow"`
	VPN         bool     `json:"vpn"` // at the mesh address too
	Connections int64    `json:"connections"`
	Made        uint64   `json:"made"`
	Refused     uint64   `json:"refused"` // by the vpn; the node counts its own
	Failed      uint64   `json:"failed"`  // the program behind did not answer
	Sent        uint64   `json:"tx_bytes"`
	Received    uint64   `json:"rx_bytes"`
	Fault       string   `json:"fault,omitempty"`
}

// NewPublisher checks the configuration; Run offers the services.
func NewPublisher(c PublisherConfig) (*Publisher, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	all, err := services(c.Specs)
	if err != nil {
		return nil, err
	}
	p := &Publisher{c: c, services: all, allow: map[string][]string{}, live: map[*meshConn]struct{}{}}
	for _, s := range all {
		p.allow[s.name] = c.Allow[s.name]
	}
	return p, nil
}

// Run offers the services until ctx ends, and returns nil then. Streams that were handed to the node outlive it.
func (p *Publisher) Run(ctx context.Context) error {
	if err := p.register(ctx); err != nil {
		return fmt.Errorf("register %q with the node: %w", p.c.Name, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range p.services {
		p.c.Log.Info("service published", "service", s.name, "type", s.kind(), "ports", s.port, "keys", len(p.allowed(s.name)))
		for range acceptors {
			wg.Go(func() { p.accept(ctx, s, &wg) })
		}
	}
	if !p.c.NoVPN {
		wg.Go(func() { p.followMembers(ctx) })
		for _, s := range p.services {
			p.serveMesh(ctx, s, &wg)
		}
	}
	every(ctx, statusEvery, p.tell)
	return nil
}

// register tells the node what is offered to whom; the node ends the streams of those who no longer may.
func (p *Publisher) register(ctx context.Context) error {
	r := app.Registration{Name: p.c.Name, Kind: p.c.Kind}
	for _, s := range p.services {
		r.Services = append(r.Services, app.Service{
			Name: s.name, Type: s.kind(), Port: s.port, Allow: p.allowed(s.name), Packets: s.packets != nil,
		})
	}
	if err := p.c.Node.Register(ctx, r); err != nil {
		return err
	}
	p.tell()
	return nil
}

// tell shows the state; nothing relies on it.
func (p *Publisher) tell() { _ = p.c.Node.Status(p.Status()) }

func (p *Publisher) allowed(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allow[name]
}

// Grant lets one more use a service, and Revoke takes it back, which ends what runs. Both hold until this process ends.
func (p *Publisher) Grant(ctx context.Context, name, word string) error {
	return p.regrant(ctx, name, func(words []string) []string {
		if slices.Contains(words, word) {
			return words
		}
		return append(slices.Clone(words), word)
	})
}

// Revoke see Grant.
func (p *Publisher) Revoke(ctx context.Context, name, word string) error {
	return p.regrant(ctx, name, func(words []string) []string {
		return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == word })
	})
}

func (p *Publisher) regrant(ctx context.Context, name string, change func([]string) []string) error {
	p.change.Lock()
	defer p.change.Unlock()
	p.mu.Lock()
	old, ok := p.allow[name]
	if ok {
		p.allow[name] = change(old)
	}
	p.mu.Unlock()
	if !ok {
		return fmt.Errorf("%q: %w", name, ErrNotPublished)
	}
	if err := p.register(ctx); err != nil {
		return err
	}
	p.recheck(ctx)
	return nil
}

// accept takes streams and flows until ctx ends.
func (p *Publisher) accept(ctx context.Context, s *service, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		in, err := p.c.Node.Accept(ctx, s.name)
		if err != nil {
			if ctx.Err() == nil {
				p.c.Log.Debug("no streams from the node", "err", err)
				pause(ctx, again)
			}
			continue
		}
		if p.all.Add(1) > maxPublished {
			p.all.Add(-1)
			in.Refuse(signal.ErrBusy.Name, "too many connections to what is published here")
			continue
		}
		wg.Go(func() {
			defer p.all.Add(-1)
			p.serve(ctx, s, in)
		})
	}
}

// serve joins one stream or flow with the program behind the service, or says why not.
func (p *Publisher) serve(ctx context.Context, s *service, in *app.Incoming) {
	spec := s.stream
	if in.Packets {
		spec = s.packets
	}
	if spec == nil {
		in.Refuse(signal.ErrNotFound.Name, "the service is published over the other of TCP and UDP")
		return
	}
	conn, err := p.backend(ctx, s, spec, p.c.Node.Self().Network.Address(in.Peer), in.Peer)
	if err != nil {
		in.Refuse(signal.ErrUnreachable.Name, "the program behind the service does not answer")
		return
	}
	s.connections.Add(1)
	defer s.connections.Add(-1)
	ended := make(chan struct{})
	var t app.Traffic
	go func() { // waits for the end of the stream, which this process need not live to see
		defer close(ended)
		if udp, ok := conn.(*net.UDPConn); ok {
			t, err = in.HandOverPackets(nil, udp)
		} else {
			t, err = in.HandOver(nil, conn.(app.Socket))
		}
	}()
	select {
	case <-ctx.Done():
		return
	case <-ended:
	}
	s.sent.Add(t.Sent)
	s.received.Add(t.Received)
	if err != nil {
		p.c.Log.Debug("connection ended", "peer", in.Peer.Short(), "service", s.name, "err", err)
	}
}

// backend dials the program behind a service for a peer.
func (p *Publisher) backend(ctx context.Context, s *service, spec *Spec, peer netAddr, k key.Public) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, backendDial)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, spec.Network, spec.Address)
	if err == nil && p.c.ProxyHeader && spec.Network != "udp" {
		conn.SetWriteDeadline(time.Now().Add(backendDial))
		_, err = conn.Write(appendProxyHeader(nil, peer, p.c.Node.Self().Address, s.port, k))
		conn.SetWriteDeadline(time.Time{})
		if err != nil {
			conn.Close()
		}
	}
	if err != nil {
		s.failed.Add(1)
		text := err.Error()
		if old := s.fault.Swap(&text); old == nil || *old != text {
			p.c.Log.Warn("program behind the service not reached", "service", s.name, "err", err)
		}
		return nil, err
	}
	s.made.Add(1)
	s.fault.Store(nil)
	return conn, nil
}

// Status returns the state of every service.
func (p *Publisher) Status() []ServiceStatus {
	var all []ServiceStatus
	for _, s := range p.services {
		v := ServiceStatus{
			Name: s.name, Port: s.port, Type: s.kind(), Allow: p.allowed(s.name), VPN: s.atMesh.Load() > 0,
			Connections: s.connections.Load(), Made: s.made.Load(), Refused: s.refused.Load(), Failed: s.failed.Load(),
			Sent: s.sent.Load(), Received: s.received.Load(),
		}
		for _, spec := range []*Spec{s.stream, s.packets} {
			if spec != nil {
				v.To = append(v.To, spec.String())
			}
		}
		if t := s.fault.Load(); t != nil {
			v.Fault = *t
		}
		all = append(all, v)
	}
	return all
}

// every calls f at once and then periodically until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
