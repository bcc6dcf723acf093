package peering

import (
	"context"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
)

// Flows of packets to exported services over UDP. What is true of streams is true of them: the same checks, quota, rate and
// end. Packets beyond the rate are dropped, as a line would.

// packets tells whether an export is reached over UDP, too.
func (e *Export) packets() bool { return e.Service != "" && strings.Contains(e.Type, app.TypeUDP) }

// servePackets joins a visitor's flow with an exported service.
func (g *Gateway) servePackets(ctx context.Context, home *app.Client, in *app.Incoming, v *guest, p *Peering, e *Export, header []byte) {
	if !e.packets() {
		_ = in.Refuse(signal.ErrRefused.Name, "this is not exported over UDP")
		return
	}
	if !g.beginFlow() {
		_ = in.Refuse(signal.ErrBusy.Name, "too many flows")
		return
	}
	defer g.endFlow()
	k, err := g.provider(ctx, home, e)
	var to *app.PacketConn
	if err == nil {
		to, err = home.DialPackets(ctx, k, e.Service, header)
	}
	if err != nil {
		_ = in.Refuse(nameNotReached, "the service is not reached: "+err.Error())
		return
	}
	from, err := in.AcceptPackets(to.Reply())
	if err != nil {
		to.Close()
		return
	}
	up, down := g.paceOf(v, p, paceKey{e.Name, false}), g.paceOf(v, p, paceKey{e.Name, true})
	counted := func(rate *pace) func(n int) (pass, on bool) {
		return func(n int) (pass, on bool) {
			if !rate.room(n) {
				return false, true
			}
			on = g.spend(p, uint64(n))
			return on, on
		}
	}
	joinPackets(from, to, counted(up), counted(down))
}

// join moves the packets of a flow of ours to another cluster.
func (t *tie) join(in *app.Incoming, to *app.PacketConn) {
	from, err := in.AcceptPackets(to.Reply())
	if err != nil {
		to.Close()
		return
	}
	all := func(int) (pass, on bool) { return true, true }
	defer context.AfterFunc(t.ctx, func() { from.Close(); to.Close() })()
	joinPackets(from, to, all, all)
}

// maxFlows bounds flows of packets, those to us and those of us: each needs two buffers of 64 KiB.
const maxFlows = 64

func (g *Gateway) beginFlow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flows >= maxFlows {
		return false
	}
	g.flows++
	return true
}

func (g *Gateway) endFlow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flows--
}

// joinPackets moves packets both ways until one end is closed, or up or down say that it is enough.
func joinPackets(a, b *app.PacketConn, up, down func(n int) (pass, on bool)) {
	var both sync.WaitGroup
	both.Go(func() { movePackets(b, a, up) })
	movePackets(a, b, down)
	both.Wait()
}

func movePackets(dst, src *app.PacketConn, may func(n int) (pass, on bool)) {
	defer dst.Close() // so that the other direction ends, too
	defer src.Close()
	b := make([]byte, app.MaxPacket)
	for {
		n, err := src.Read(b)
		if err != nil {
			return
		}
		pass, on := may(n)
		if !on {
			return
		}
		if !pass {
			continue
		}
		if _, err := dst.Write(b[:n]); err != nil {
			return
		}
	}
}

// pace keeps bytes to a rate. The zero rate is none.
type pace struct {
	rate float64 // bytes a second

	mu   sync.Mutex // guards the fields below
	left float64
	at   time.Time
}

// paceKey: an export and a direction.
type paceKey struct {
	export string
	down   bool
}

// paceOf is the pace of a visitor's streams and flows to one export together, in one direction.
func (g *Gateway) paceOf(v *guest, p *Peering, k paceKey) *pace {
	rate := float64(p.Gives().Rate)
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := v.paces[k]; r != nil && r.rate == rate {
		return r
	}
	if v.paces == nil {
		v.paces = map[paceKey]*pace{}
	}
	r := &pace{rate: rate, left: rate, at: time.Now()}
	v.paces[k] = r
	return r
}

// paceMost is the longest that a stream waits at once: it does not hear meanwhile that it was ended.
const paceMost = 10 * time.Second

// piece is how much may be moved before wait is asked.
func (r *pace) piece() int64 {
	if r.rate == 0 {
		return countEvery
	}
	return int64(min(max(r.rate/8, 1), countEvery))
}

// room tells whether a packet fits, and counts it.
func (r *pace) room(n int) bool {
	if r.rate == 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fillLocked()
	if r.left <= 0 { // the last one that fits may be longer than what is left: else none of 64 KiB ever did at 10 KB/s
		return false
	}
	r.left -= float64(n)
	return true
}

// wait counts bytes of a stream that were moved, and waits until they were due.
func (r *pace) wait(n int) {
	if r.rate == 0 {
		return
	}
	r.mu.Lock()
	r.fillLocked()
	r.left -= float64(n)
	debt := time.Duration(-r.left / r.rate * float64(time.Second))
	r.mu.Unlock()
	if debt > 0 {
		t := time.NewTimer(min(debt, paceMost))
		defer t.Stop()
		<-t.C
	}
}

// fillLocked adds what time has brought, a second's worth at most.
func (r *pace) fillLocked() {
	now := time.Now()
	r.left = min(r.rate, r.left+r.rate*now.Sub(r.at).Seconds())
	r.at = now
}
