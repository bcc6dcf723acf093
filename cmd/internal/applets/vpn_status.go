package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/tun/vpn"
)

// vpnReport is what vpn status --json prints.
type vpnReport struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	vpn.Status
	Path []string `json:"path,omitempty"` // to the server in use: keys of the hops, this node first
}

const vpnStatusAbout = `Prints what the vpn of this box does: state, since when, server and the way to it, addresses, bytes, rate, and where
packets to the internet would go; if it is not connected why, and when the next try is.

With --leak-check (root) it tries to get packets out past the tunnel: to the resolvers that this box had before, to the
internet by UDP, TCP and ICMP, IPv4 and IPv6, by sockets bound to each other device and address, while connected and
during a reconnection that it forces. It listens on all other devices, below the firewall, for just these packets, and
for one that is meant to leave: a check that cannot see says so. The status is 1 when something got out. Without a kill
switch sockets bound to a device, and the LAN, are open by design.`

func vpnStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "vpn status", "[--leak-check] [--json]", vpnStatusAbout)
	name := f.String("name", "", "`NAME` of the app, where several run")
	leaks := f.Bool("leak-check", false, "try to leak, and say what got out")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		r, err := vpnAsk(ctx, node, *name)
		if err != nil {
			return err
		}
		if *leaks {
			return vpnLeakCheck(ctx, f, node, r)
		}
		if c := r.Client; c != nil && c.Server != "" {
			r.Path, _ = vpnPath(ctx, node, c.Server) // only a gain
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		vpnPrint(e, r)
		return nil
	})
}

// vpnAsk finds the vpn beside the node and asks it.
func vpnAsk(ctx context.Context, node *app.Client, name string) (vpnReport, error) {
	var all []struct {
		Name, Kind string
		PID        int
	}
	if err := node.Call(ctx, "app.list", nil, &all); err != nil {
		return vpnReport{}, err
	}
	for _, a := range all {
		if a.Kind != vpnKind || name != "" && a.Name != name {
			continue
		}
		r := vpnReport{Name: a.Name, PID: a.PID}
		err := vpnCall(ctx, node, r, "status", &r.Status)
		return r, err
	}
	return vpnReport{}, applet.WithCode(applet.NotRunning, errors.New("no vpn runs beside this node; start one with: skywire vpn up"))
}

func vpnCall(ctx context.Context, node *app.Client, r vpnReport, method string, out any) error {
	return node.Call(ctx, "app.call", app.CallParams{App: r.Name, Method: method, Params: json.RawMessage("{}")}, out)
}

// vpnPath asks the node for the way that its session to the server takes.
func vpnPath(ctx context.Context, node *app.Client, server string) ([]string, error) {
	var all []struct {
		Peer key.Public
		Role string
		Hops []key.Public
	}
	if err := node.Call(ctx, "node.paths", nil, &all); err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Peer.String() != server || p.Role != "active" {
			continue
		}
		var hops []string
		for _, k := range p.Hops {
			hops = append(hops, k.String())
		}
		return hops, nil
	}
	return nil, nil
}

func vpnPrint(e *applet.Env, r vpnReport) {
	p := func(format string, args ...any) { fmt.Fprintf(e.Stdout, format+"\n", args...) }
	p("%s (pid %d): %s on %s, address %s, mtu %d, up %s", r.Name, r.PID, r.State, r.Device, r.Address, r.MTU,
		time.Since(r.Started).Round(time.Second))
	p("  %s received (%s/s), %s sent (%s/s)", applet.Bytes(r.RxBytes), applet.Bytes(uint64(r.RxRate/8)),
		applet.Bytes(r.TxBytes), applet.Bytes(uint64(r.TxRate/8)))
	if l := r.KillSwitch; l != nil {
		p("  kill switch: firewall %s, routes %s, %d packets stopped", vpnYesNo(l.Table), vpnYesNo(l.Routes), l.Blocked)
	}
	vpnPrintUp(p, r.Status)
	vpnPrintDNS(p, r.DNS)
	if r.Server != nil {
		vpnPrintServer(p, r.Server)
	}
	if r.Client != nil {
		vpnPrintClient(p, r.Client, r.Path)
	}
}

// vpnPrintClient prints the client's part of the status, a line a call of p.
func vpnPrintClient(p func(format string, args ...any), c *vpn.ClientStatus, path []string) {
	p("  client of %s", c.Server)
	if len(c.Servers) > 1 {
		p("    in this order: %s", strings.Join(c.Servers, " "))
	}
	if !c.Since.IsZero() {
		p("    connected for %s", time.Since(c.Since).Round(time.Second))
	}
	if len(path) > 2 {
		var hops []string
		for _, k := range path[1 : len(path)-1] {
			hops = append(hops, k[:min(len(k), 8)])
		}
		p("    through %s", strings.Join(hops, " "))
	} else if len(path) == 2 {
		p("    a direct link")
	}
	if c.IPv4.IsValid() {
		p("    address %s, gateway %s, rtt %.1f ms", c.IPv4, c.Gateway, c.RTT)
		p("    exit: %s, IPv6 through it: %s, networks: %s", vpnYesNo(c.Exit), vpnYesNo(c.IPv6), vpnJoin(c.Subnets))
	}
	if len(c.Refused) > 0 {
		p("    offered and not taken: %s", vpnJoin(c.Refused))
	}
	if c.LeakCheck != "" {
		p("    leak check: %s", c.LeakCheck)
	}
	if c.Error != "" {
		p("    %s", c.Error)
	}
	if !c.NextTry.IsZero() {
		p("    next try in %s", max(0, time.Until(c.NextTry)).Round(time.Second))
	}
}
