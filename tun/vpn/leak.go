package vpn

import (
	"context"
	"net/netip"
	"time"
)

// LeakCheck says what LeakCheck.Run tries.
type LeakCheck struct {
	Device    string       // the tunnel
	Resolvers []netip.Addr // who was asked for names before the vpn: settings of the box, its routers
	Mark      uint32       // of the mesh's own packets, which must be seen outside
	// Reconnect breaks the session; the attempts go on until Settled reports that it stands again.
	Reconnect func() error
	Settled   func() bool
}

// Leak is one way that was tried.
type Leak struct {
	What    string `json:"what"`              // such as "dns", "udp", "tcp", "icmp"
	To      string `json:"to"`                // address
	Via     string `json:"via,omitempty"`     // the device or source address that the socket was bound to
	During  string `json:"during"`            // "connected" or "reconnecting"
	Sent    int    `json:"sent"`              // packets that the kernel took
	Refused string `json:"refused,omitempty"` // why it took the others not
	Outside int    `json:"outside"`           // packets seen on devices that are not the tunnel
	By      string `json:"by,omitempty"`      // which one
}

// LeakReport is what came of it.
type LeakReport struct {
	OK      bool     `json:"ok"`      // nothing was seen outside, and the watch can see
	Sees    bool     `json:"sees"`    // a packet meant to go outside was seen
	Watched []string `json:"watched"` // devices, each listened to below the firewall
	Tried   []Leak   `json:"tried"`
}

const (
	// leakRounds and leakPause make one phase some seconds long at most; a reconnection is watched for leakLong.
	leakRounds = 3
	leakPause  = 100 * time.Millisecond
	leakLong   = 8 * time.Second
)

// Addresses that everybody's packets to the internet could have.
var (
	leakTarget4 = netip.AddrFrom4([4]byte{1, 1, 1, 1})
	leakTarget6 = netip.AddrFrom16([16]byte{0x26, 0x06, 0x47, 0x00, 0x47, 0x00, 14: 0x11, 15: 0x11})
)

// Run tries to get packets out of this box past the tunnel, and looks on all other devices, from below the firewall,
// whether they left.
func (c LeakCheck) Run(ctx context.Context) (LeakReport, error) {
	w, err := openLeakWatch(c.Device)
	if err != nil {
		return LeakReport{}, err
	}
	defer w.close()
	r := LeakReport{Watched: w.names()}
	if r.Sees, err = w.proof(ctx, c.Mark); err != nil {
		return r, err
	}
	phase := func(name string, more func(round int) bool) {
		tries := w.attempts(c.Resolvers)
		for round := 0; more(round); round++ {
			for i := range tries {
				tries[i].send()
			}
			if !pause(ctx, leakPause) {
				break
			}
		}
		pause(ctx, 2*leakPause) // what is still queued
		for _, t := range tries {
			t.During = name
			t.Outside, t.By = w.seen(t.token)
			r.Tried = append(r.Tried, t.Leak)
		}
	}
	phase("connected", func(round int) bool { return round < leakRounds })
	if c.Reconnect != nil {
		began := time.Now()
		if err := c.Reconnect(); err != nil {
			return r, err
		}
		phase("reconnecting", func(round int) bool {
			return ctx.Err() == nil && (round < 2*leakRounds || !c.Settled() && time.Since(began) < leakLong)
		})
	}
	r.OK = r.Sees
	for _, t := range r.Tried {
		r.OK = r.OK && t.Outside == 0
	}
	return r, ctx.Err()
}
