package vpn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
	"skywire/tun"
	"skywire/tun/netcfg"
)

const (
	// nodeTimeout bounds one question to the node on this box.
	nodeTimeout = 10 * time.Second
	// reportEvery is how often byte counters reach the node's app.list; changes are told at once.
	reportEvery = 10 * time.Second
	// watchEvery is how soon a device that somebody deleted is missed.
	watchEvery = 2 * time.Second
)

// Groups of changes in the journal: each role takes its own back.
const (
	groupUp     = "up"
	groupServer = "server"
	groupClient = "client" // addresses and default routes
	groupLease  = "lease"  // routes of one server
	groupExit   = "exit"   // what exits need, whichever
	groupHold   = "hold"   // between two exits
)

// App is one run of the vpn.
type App struct {
	c      Config
	node   Node
	log    *slog.Logger
	poke   chan struct{} // capacity 1: the status changed
	naming *naming
	queues []*os.File // the copies that outlive a restart of the node

	domains domains

	mu       sync.Mutex // guards the fields below and all calls to net
	net      *netcfg.Net
	firewall netcfg.Firewall
	policies [3]app.Policy  // of the server role, of the client role, and of accepted subnets
	blocks   []netip.Prefix // of the cluster's IPv4 addresses
	mark     int            // of the mesh's own sockets; 0: none
	locked   bool           // the kill switch is on, and outlives us
	sample   sample
	force    func() // ends the session of the client role
	status   Status
}

// New makes an App over a node that is running.
func New(c Config, node Node) (*App, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &App{c: c, node: node, log: c.Log, poke: make(chan struct{}, 1), naming: newNaming(), domains: domains{till: map[netip.Addr]time.Time{}}}
	if c.Client != nil && len(c.Client.ExcludeBy.Domains)+len(c.Client.OnlyBy.Domains) > 0 {
		a.c.DNS.Learned = a.domainSeen
	}
	a.status = Status{State: Starting, Device: c.Device, MTU: c.MTU, Roles: []string{"up"}, Started: time.Now()}
	if c.Server != nil {
		a.status.Roles = append(a.status.Roles, "server")
	}
	if c.Client != nil {
		a.status.Roles = append(a.status.Roles, "client")
	}
	return a, nil
}

// Run takes the device up, plays the roles until ctx ends or one of them fails, and takes everything back. It returns
// nil when ctx ended it.
func (a *App) Run(ctx context.Context) (err error) {
	// Before leftovers of a killed run are taken back, which may be all that keeps packets in.
	if a.locked, err = Lock(a.c, a.log); err != nil {
		return err
	}
	if a.locked {
		a.mark = netcfg.DefaultMark
	}
	n, err := netcfg.Open(netcfg.Config{Dir: a.c.Run, Device: a.c.Device, Log: a.log})
	if err != nil {
		return err
	}
	a.net = n
	defer func() { // the last of all: nobody else uses net any more
		err = errors.Join(err, n.Close())
	}()
	defer a.closeDevice()

	ctx, cancel := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel(nil)
	start := func(role func(context.Context) error) {
		all.Go(func() {
			if err := role(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	start(a.node.Run)
	if err := a.openDevice(ctx); err != nil {
		return err
	}
	a.takeCertified(ctx)
	a.node.OnCall(a.answer)
	if err := a.register(ctx); err != nil {
		return fmt.Errorf("register at the node: %w", err)
	}
	start(a.followNode)
	start(a.names)
	start(a.watchDevice)
	start(func(ctx context.Context) error {
		a.followMembers(ctx, a.takeCertified)
		return nil
	})
	start(a.report)
	if a.c.Server != nil {
		// Before the client role, which leaves alone what the server role has.
		serve, err := a.openServer()
		if err != nil {
			return err
		}
		start(serve.run)
	}
	if len(a.c.Accept) > 0 {
		start(a.newSubnets(a.c.Accept).run)
	}
	if a.c.Client != nil {
		start(a.use)
	} else {
		a.update(func(s *Status) { s.State = Up })
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// openDevice makes the device, gives it the mesh address and hands it to the node.
func (a *App) openDevice(ctx context.Context) error {
	self := a.node.Self()
	if !self.Address.Is6() || !self.Prefix.IsValid() {
		return fmt.Errorf("the node says its mesh address is %q", self.Address)
	}
	a.mu.Lock()
	queues, err := a.makeDevice(self)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if err := a.node.AttachTUN(ctx, queues, a.c.Device, a.c.MTU); err != nil {
		return errors.Join(fmt.Errorf("hand %s to the node: %w", a.c.Device, err), closeAll(queues))
	}
	a.queues = queues
	if err := a.markSockets(ctx); err != nil {
		a.log.Debug("the node's sockets keep small buffers", "err", err)
	}
	a.log.Info("device up", "device", a.c.Device, "address", self.Address, "mtu", a.c.MTU, "queues", len(queues))
	return nil
}

// makeDevice makes the device with a queue for each of the node's loops, and its addresses.
func (a *App) makeDevice(self app.Info) ([]*os.File, error) {
	if err := a.net.ClaimLink(); err != nil {
		return nil, err
	}
	c := tun.Config{Name: a.c.Device, Plain: a.c.Plain, Queues: min(max(self.Queues, 1), app.MaxQueues)}
	f, name, err := tun.Create(c)
	if errors.Is(err, syscall.EINVAL) && !c.Plain {
		a.log.Warn("device without offloads: this kernel refuses virtio headers", "err", err)
		a.c.Plain, c.Plain = true, true
		f, name, err = tun.Create(c)
	}
	if err != nil {
		return nil, err
	}
	if name != a.c.Device {
		return nil, errors.Join(fmt.Errorf("device name %q is a pattern: give a plain name", a.c.Device), f.Close())
	}
	queues := []*os.File{f}
	for len(queues) < c.Queues {
		q, err := tun.AddQueue(c, name)
		if err != nil {
			a.log.Warn("device with fewer queues than the node has loops", "queues", len(queues), "err", err)
			break
		}
		queues = append(queues, q)
	}
	link := netcfg.Link{MTU: a.c.MTU, QueueLen: queueLen}
	if !a.c.Plain {
		link.GSOMaxSize = gsoMaxSize
	}
	err = a.net.SetLink(link)
	if err == nil {
		err = a.net.Address(groupUp, host(self.Address))
	}
	if err == nil {
		err = a.net.Route(groupUp, netcfg.Route{Prefix: self.Prefix, Source: self.Address})
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(queues))
	}
	a.status.Address = self.Address
	return queues, nil
}

func closeAll(files []*os.File) (err error) {
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// closeDevice makes the node forget the device and what may go through it.
func (a *App) closeDevice() {
	if len(a.queues) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	a.mu.Lock()
	marked := a.mark != 0 && !a.locked // a locked box's node goes on with its mark
	if marked {
		a.mark = 0
	}
	a.mu.Unlock()
	var err error
	if marked {
		err = a.markSockets(ctx)
	}
	err = errors.Join(err, a.node.SetPolicy(ctx, app.Policy{}), a.node.DetachTUN(ctx, a.c.Device), closeAll(a.queues))
	if err != nil && !errors.Is(err, app.ErrNotRunning) {
		a.log.Warn("node was not told that the vpn ends", "err", err)
	}
}

func (a *App) register(ctx context.Context) error {
	r := app.Registration{Name: a.c.Name, Kind: "vpn"}
	if s := a.c.Server; s != nil {
		r.Services = []app.Service{{Name: Service, Type: Service, Allow: s.words(), Meta: s.meta()}}
	}
	return a.node.Register(ctx, r)
}

// followNode does again what only a new node needs: the marks of its sockets. The rest mesh/app repeats by itself.
func (a *App) followNode(ctx context.Context) error {
	for {
		changed := a.node.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if now := a.node.Self().Address; now != a.status.Address {
			return fmt.Errorf("the node came back as somebody else (%s): start the vpn again", now)
		}
		a.log.Info("node is back")
		a.mu.Lock()
		exit := a.mark != 0
		a.mu.Unlock()
		if err := a.markSockets(ctx); err != nil && exit && ctx.Err() == nil {
			a.log.Error("the mesh's own packets may go into the tunnel", "err", err)
		}
		if err := a.tellPolicy(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("policy not told", "err", err)
		}
	}
}

// watchDevice ends the App when somebody deletes the device or takes it down: the kernel forgets its routes then, and
// only a new start makes everything anew.
func (a *App) watchDevice(ctx context.Context) error {
	for pause(ctx, watchEvery) {
		i, err := net.InterfaceByName(a.c.Device)
		switch {
		case err != nil:
			return fmt.Errorf("device %s is gone, somebody deleted it: start the vpn again", a.c.Device)
		case i.Flags&net.FlagUp == 0:
			return fmt.Errorf("device %s was taken down, and its routes with it: start the vpn again", a.c.Device)
		}
	}
	return nil
}

// markSockets marks the node's own sockets, so that their packets stay out of the tunnel, and gives them large buffers,
// which the node has no right to.
func (a *App) markSockets(ctx context.Context) error {
	a.mu.Lock()
	mark := a.mark
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	files, err := a.node.Sockets(ctx)
	if err != nil {
		return fmt.Errorf("ask the node for its sockets: %w", err)
	}
	for _, f := range files {
		if e := markSocket(f, mark); e != nil {
			err = errors.Join(err, fmt.Errorf("mark the node's socket: %w", e))
		}
		f.Close()
	}
	if err == nil && len(files) == 0 {
		return errors.New("the node has no sockets")
	}
	return err
}

// setPolicy replaces one role's part of what the node lets through.
func (a *App) setPolicy(ctx context.Context, role int, p app.Policy) error {
	a.mu.Lock()
	a.policies[role] = p
	a.mu.Unlock()
	return a.tellPolicy(ctx)
}

func (a *App) tellPolicy(ctx context.Context) error {
	a.mu.Lock()
	s, c, n := a.policies[asServer], a.policies[asClient], a.policies[asSubnets]
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	err := a.node.SetPolicy(ctx, app.Policy{
		Routes: slices.Concat(s.Routes, n.Routes, c.Routes),
		Grants: slices.Concat(s.Grants, n.Grants, c.Grants),
		Serve:  slices.Concat(s.Serve, n.Serve, c.Serve),
	})
	if err != nil {
		return fmt.Errorf("set the node's policy: %w", err)
	}
	return nil
}

// Indices of App.policies.
const (
	asServer = iota
	asClient
	asSubnets
)

// report tells the node the status when it changes, and the counters now and then.
func (a *App) report(ctx context.Context) error {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		s := a.Status()
		if l := s.KillSwitch; l != nil && !(l.Table && l.Routes) {
			a.mend()
		}
		if err := a.node.Status(s); err != nil {
			a.log.Debug("status not told", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-a.poke:
		}
	}
}

// update changes the status and lets it be told.
func (a *App) update(f func(*Status)) {
	a.mu.Lock()
	before := a.status.State
	f(&a.status)
	after := a.status.State
	a.mu.Unlock()
	if before != after {
		a.log.Info("vpn "+string(after), "device", a.c.Device)
	}
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// Status is what the vpn is doing now.
func (a *App) Status() Status {
	a.mu.Lock()
	s := a.status
	s.Mark = a.mark
	if s.Server != nil {
		c := *s.Server
		c.Clients = slices.Clone(c.Clients)
		s.Server = &c
	}
	if s.Client != nil {
		c := *s.Client
		s.Client = &c
	}
	a.mu.Unlock()
	s.RxBytes, s.TxBytes = counters(a.c.Device)
	s.DNS = a.dnsStatus()
	s.RxRate, s.TxRate = a.rate(s.RxBytes, s.TxBytes)
	if a.locked {
		s.KillSwitch = lockState(a.log)
	}
	if s.Client != nil && s.Client.Exit {
		s.Client.LeakCheck = a.leakCheck(s.Client.IPv6)
	}
	return s
}

// leakCheck asks the kernel where packets to the internet would go.
func (a *App) leakCheck(v6 bool) string {
	for _, probe := range []struct {
		addr netip.Addr
		on   bool
	}{{netip.MustParseAddr("1.1.1.1"), true}, {netip.MustParseAddr("2606:4700:4700::1111"), v6}} {
		device, err := netcfg.RouteDevice(probe.addr)
		switch {
		case err != nil && probe.on:
			return fmt.Sprintf("no route to %s: %v", probe.addr, err)
		case err == nil && device != a.c.Device:
			return fmt.Sprintf("leak: %s goes out by %s", probe.addr, device)
		}
	}
	return "ok"
}

// answer serves app.call.
func (a *App) answer(_ context.Context, method string, _ json.RawMessage) (any, error) {
	switch method {
	case "status":
		return a.Status(), nil
	case "reconnect":
		return nil, a.reconnect()
	}
	return nil, signal.Errorf(signal.ErrUnknownMethod, "the vpn has no method %q", method)
}
