package applets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"skywire/mesh/link/udp"
	"skywire/mesh/node"
	"skywire/mesh/node/api"
	"skywire/tun"
)

// What the doctor finds out by doing: the same list as node status shows of a node that runs.

// doctorFeatures tries what the data plane would use here.
func doctorFeatures(ctx context.Context) []finding {
	all := []finding{fromFeature(node.CipherFeature())}
	i, err := exercise(ctx)
	if err != nil {
		all = append(all, finding{
			Check: "udp", Needed: true, Found: err.Error(), Costs: "no UDP socket: no links",
			Remedy: "look for a firewall or sandbox that forbids sockets",
		})
	} else {
		for _, f := range node.SocketFeatures("udp", i, false) {
			all = append(all, fromFeature(f))
		}
	}
	return append(all, doctorTUN()...)
}

func fromFeature(f api.Feature) finding {
	g := finding{Check: f.Of + " " + f.Name, OK: f.On, Found: f.Found, Costs: f.Costs, Remedy: f.Remedy}
	if g.Found == "" {
		g.Found = map[bool]string{true: "there", false: "not here"}[f.On]
	}
	if !g.OK && g.Remedy == "" {
		g.Remedy = "none needed"
	}
	return g
}

// doctorTUN makes a device for a moment and reads what the kernel grants it.
func doctorTUN() []finding {
	f, _, err := tun.Create(tun.Config{Name: "skydoctor%d", Queues: 2})
	var d tun.Device
	if err == nil {
		d, err = tun.FromFile(f, tun.DefaultMTU)
	}
	if err != nil {
		return []finding{{
			Check: "tun offloads", Found: "not known: " + err.Error(), Costs: "without them a vpn may reach two fifths of its throughput",
			Remedy: "run doctor as root to know, where there is a TUN device at all",
		}}
	}
	defer d.Close()
	var all []finding
	for _, f := range tunFeatures("tun", d) {
		all = append(all, fromFeature(f))
	}
	return all
}

// tunFeatures says what the kernel granted a device, if t is one.
func tunFeatures(of string, t any) []api.Feature {
	d, ok := t.(interface{ Features() tun.Features })
	if !ok {
		return nil
	}
	has := d.Features()
	all := []api.Feature{api.NewFeature(of, api.FeatureVnetHdr, has.VnetHdr, "", "")}
	if !has.VnetHdr { // the others depend on it
		return all
	}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{api.FeatureChecksum, has.Checksum},
		{api.FeatureTSO4, has.TSO4},
		{api.FeatureTSO6, has.TSO6},
		{api.FeatureTSOECN, has.TSOECN},
		{api.FeatureUSO4, has.USO4},
		{api.FeatureUSO6, has.USO6},
		{api.FeatureJoinUDP, has.JoinUDP},
		{api.FeatureMultiQueue, has.MultiQueue},
	} {
		all = append(all, api.NewFeature(of, f.name, f.on, "", ""))
	}
	return all
}

// A train as a node would send it.
const (
	trainSegment  = 1200
	trainSegments = 8
	trainECN      = 2 // ECT(0)
	trainWait     = 2 * time.Second
)

// exercise sends a train from one socket of this box to another, and says what really happened to it: whether it went and
// came in one piece, and with its ECN field.
func exercise(ctx context.Context) (udp.Info, error) {
	here := netip.MustParseAddrPort("127.0.0.1:0")
	from, err := udp.Listen(udp.Config{Addr: here})
	if err != nil {
		return udp.Info{}, err
	}
	defer from.Close()
	to, err := udp.Listen(udp.Config{Addr: here})
	if err != nil {
		return udp.Info{}, err
	}
	defer to.Close()
	train := bytes.Repeat([]byte{0x5a}, trainSegment*trainSegments)
	if err := from.Send(to.Addr(), train, trainSegment, trainECN); err != nil {
		return udp.Info{}, fmt.Errorf("send a train of datagrams: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, trainWait)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	i := from.Info() // after the train: a device may have refused it
	joined, marked := false, true
	for got, b := 0, make([]byte, 64<<10); got < len(train); {
		a, err := to.Receive(b)
		switch {
		case err == nil:
			got += a.N
			joined = joined || a.N > a.Seg
			marked = marked && a.ECN == trainECN
			continue
		case !errors.Is(err, syscall.EAGAIN):
			return udp.Info{}, fmt.Errorf("receive a train of datagrams: %w", err)
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return udp.Info{}, fmt.Errorf("%d of %d bytes of a train came over the loopback: %w", got, len(train), ctx.Err())
		}
	}
	if i.GSO {
		i.GRO = i.GRO && joined // single datagrams are joined by a device, which the loopback is not
	}
	i.ECN = i.ECN && marked
	return i, nil
}
