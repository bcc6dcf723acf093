package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"skywire/mesh/link"
	"skywire/mesh/link/lan"
	"skywire/mesh/link/portmap"
	netwatch "skywire/mesh/link/watch"
)

// Finding says by which means a node finds others and is found, beside the addresses that it is given.
type Finding struct {
	LAN     bool // beacons on local networks
	LANPort int  // of beacons; 0: lan.DefaultPort
	Map     bool // have gateways map our port
	Publish Publish
}

// reacher follows where this box is in the network, and has everybody told who has to know.
type reacher struct {
	n     *Node
	watch *netwatch.Watcher
	met   friends

	lan    *lan.LAN        // nil: off
	mapper *portmap.Mapper // nil: off

	place atomic.Pointer[netwatch.State]
}

func newReacher(n *Node) (*reacher, error) {
	r := &reacher{n: n}
	r.place.Store(&netwatch.State{})
	var err error
	r.watch, err = netwatch.New(netwatch.Config{
		Ignore: func(a netip.Addr) bool { return n.network.Prefix().Contains(a) },
		Now:    link.Now, Changed: r.changed, Log: n.log,
	})
	if err == nil && n.cfg.Find.LAN {
		err = r.newLAN()
	}
	if err == nil && n.cfg.Find.Map {
		err = r.newMapper()
	}
	return r, err
}

// run starts the parts.
func (r *reacher) run(part func(name string, f func(context.Context) error)) {
	part("network watcher", r.watch.Run)
	if r.lan != nil {
		part("lan", r.lan.Run)
	}
	if r.mapper != nil {
		part("port mapping", r.mapper.Run)
	}
}

// Place returns where this box is in the network; the zero value at first.
func (r *reacher) Place() netwatch.State { return *r.place.Load() }

// changed is called by the watcher's goroutine.
func (r *reacher) changed(e netwatch.Event) {
	before := r.place.Swap(&e.State)
	r.n.setLocals(prefixes(e.State))
	if r.lan != nil {
		r.lan.Update(lanInterfaces(e.State))
	}
	if r.mapper != nil {
		r.mapper.Update(r.gateways(e.State))
	}
	if e.First {
		return
	}
	what, cause := "network is "+orNone(e.State.Network()), "addresses or routes changed"
	switch {
	case e.Slept > 0:
		what, cause = "awake again", fmt.Sprintf("the box slept %v", e.Slept.Round(time.Second))
	case e.State.Network() == before.Network():
		what = "routes changed"
	}
	r.n.log.Info("network changed", "addr", e.State.Network(), "reason", cause)
	_ = r.n.do(context.Background(), func(now time.Duration) { r.n.core.Moved(now, what, cause) })
	r.n.resolve.again()
}

// prefixes are the addresses of all interfaces.
func prefixes(s netwatch.State) []netip.Prefix {
	var all []netip.Prefix
	for _, i := range s.Interfaces {
		all = append(all, i.Addrs...)
	}
	return all
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Moved is told that this box's addresses or routes changed, or that it slept: every neighbour hears from the new address at
// once. What runs goes on over the old one as long as that works.
func (n *Core) Moved(now time.Duration, what, cause string) {
	n.note(EventNetwork, n.self, what, cause)
	n.links.Moved(now)
	n.newsOfRecord(now)
}
