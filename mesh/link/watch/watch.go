// Package watch tells when this box's place in the network changed: addresses, interfaces, routes, and that it slept.
//
// It only looks: it changes no setting, knows no link and sends no packet. On Linux netlink wakes it, elsewhere it polls; what it
// reports is always the whole state as it is now, compared with the one before, so a lost or repeated message does no harm.
//
// Rules: Changed is called from Run's goroutine, first with the state at the start, then for every difference; a storm of
// messages costs one look each gapLook.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

const (
	// settle is how long after a message the look waits for those that belong to it: an address comes with its routes.
	settle = 10 * time.Millisecond
	// gapLook is the least time between two looks.
	gapLook = 100 * time.Millisecond
	// wakeLook is how often the clocks are compared, and wakeLeast what they must differ by to call it sleep.
	wakeLook  = time.Second
	wakeLeast = 500 * time.Millisecond
	// pollEvery is how often is looked where nothing tells of changes.
	pollEvery = 3 * time.Second
)

// Interface is an interface that is up and leads off this box.
type Interface struct {
	Index        int
	Name         string
	Multicast    bool
	PointToPoint bool
	Addrs        []netip.Prefix // in order
}

// Gateway is where a default route leads.
type Gateway struct {
	Interface int        // its index
	Addr      netip.Addr // with the zone if it is link-local
	Metric    int
}

// State is this box's place in the network.
type State struct {
	Interfaces []Interface // by index
	Gateways   []Gateway   // the preferred first
	Routes     uint64      // a hash of all other routes
}

// Equal reports whether nothing differs.
func (s State) Equal(o State) bool {
	return s.Routes == o.Routes && slices.Equal(s.Gateways, o.Gateways) &&
		slices.EqualFunc(s.Interfaces, o.Interfaces, func(a, b Interface) bool {
			return a.Index == b.Index && a.Name == b.Name && a.Multicast == b.Multicast && slices.Equal(a.Addrs, b.Addrs)
		})
}

// Network names the network that this box is in, for what is remembered by network: its gateways and the prefixes of its interfaces.
// Empty means none.
func (s State) Network() string {
	var all []string
	for _, g := range s.Gateways {
		all = append(all, "via "+g.Addr.WithZone("").String())
	}
	for _, i := range s.Interfaces {
		for _, a := range i.Addrs {
			if !a.Addr().IsLinkLocalUnicast() {
				all = append(all, a.Masked().String())
			}
		}
	}
	sort.Strings(all)
	return strings.Join(slices.Compact(all), " ")
}

// Has reports whether an address is one of this box.
func (s State) Has(a netip.Addr) bool {
	for _, i := range s.Interfaces {
		for _, p := range i.Addrs {
			if p.Addr() == a.WithZone("") {
				return true
			}
		}
	}
	return false
}

// Event says what changed.
type Event struct {
	State State
	First bool          // nothing changed: this is the state at the start
	Slept time.Duration // how long the box slept, 0 if the state differs instead
}

// Config says how to watch.
type Config struct {
	// Ignore tells the addresses of devices that are the mesh's own; a device with one of them is left out.
	Ignore func(netip.Addr) bool
	// Now is a clock that goes on during sleep; nil: sleep goes unnoticed.
	Now     func() time.Duration
	Changed func(Event)
	Log     *slog.Logger
}

// Watcher watches. Its zero value is of no use.
type Watcher struct {
	c     Config
	look  func() (State, error)
	awake func(ctx context.Context, wake chan<- struct{}) error // blocks; each message puts a note into wake

	last          State
	booted, begun time.Duration // the two clocks at the last comparison
	start         time.Time
}

// New makes a watcher; nothing runs before Run.
func New(c Config) (*Watcher, error) {
	if c.Changed == nil {
		return nil, fmt.Errorf("watch: nobody to tell")
	}
	if c.Ignore == nil {
		c.Ignore = func(netip.Addr) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{c: c, awake: subscribe}
	w.look = w.snapshot
	return w, nil
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	wake := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() { ended <- w.awake(ctx, wake) }()
	defer func() {
		cancel()
		if ended != nil {
			<-ended
		}
	}()
	w.start = time.Now()
	w.compareClocks()
	if s, err := w.look(); err != nil {
		w.c.Log.Warn("network not looked at", "err", err)
	} else {
		w.last = s
		w.c.Changed(Event{State: s, First: true})
	}
	ticks := time.NewTicker(wakeLook)
	defer ticks.Stop()
	due := time.NewTimer(pollEvery)
	defer due.Stop()
	armed, polls := false, false
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				ended = nil
				return nil
			}
			w.c.Log.Info("changes of the network are polled", "err", err)
			ended, polls = nil, true
			due.Reset(pollEvery)
		case <-wake:
			if !armed {
				armed = true
				due.Reset(max(settle, gapLook-time.Since(looked)))
			}
		case <-due.C:
			if armed || polls {
				looked = time.Now()
				w.compare(0)
			}
			armed = false
			due.Reset(pollEvery)
		case <-ticks.C:
			if slept := w.compareClocks(); slept > 0 {
				w.compare(slept)
			}
		}
	}
}

// compare looks, and tells what differs.
func (w *Watcher) compare(slept time.Duration) {
	s, err := w.look()
	if err != nil {
		w.c.Log.Warn("network not looked at", "err", err)
		s = w.last
	}
	if slept == 0 && s.Equal(w.last) {
		return
	}
	w.last = s
	w.c.Changed(Event{State: s, Slept: slept})
}

// compareClocks returns how long the box slept since the last call.
func (w *Watcher) compareClocks() time.Duration {
	if w.c.Now == nil {
		return 0
	}
	boot, mono := w.c.Now(), time.Since(w.start)
	slept := (boot - w.booted) - (mono - w.begun)
	w.booted, w.begun = boot, mono
	if slept < wakeLeast || w.begun == 0 {
		return 0
	}
	return slept
}

// snapshot asks the system.
func (w *Watcher) snapshot() (State, error) {
	all, err := net.Interfaces()
	if err != nil {
		return State{}, fmt.Errorf("list interfaces: %w", err)
	}
	var s State
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went meanwhile
		}
		o := Interface{Index: i.Index, Name: i.Name, Multicast: i.Flags&net.FlagMulticast != 0, PointToPoint: i.Flags&net.FlagPointToPoint != 0}
		ours := false
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(n.IP)
				ones, _ := n.Mask.Size()
				o.Addrs = append(o.Addrs, netip.PrefixFrom(ip.Unmap(), ones))
				ours = ours || w.c.Ignore(ip.Unmap())
			}
		}
		if ours {
			continue
		}
		sort.Slice(o.Addrs, func(a, b int) bool { return o.Addrs[a].Addr().Less(o.Addrs[b].Addr()) })
		s.Interfaces = append(s.Interfaces, o)
	}
	sort.Slice(s.Interfaces, func(a, b int) bool { return s.Interfaces[a].Index < s.Interfaces[b].Index })
	return s, s.addRoutes()
}

// named returns the name of an interface of the state, empty if it is not there.
func (s *State) named(index int) string {
	for _, i := range s.Interfaces {
		if i.Index == index {
			return i.Name
		}
	}
	return ""
}
