//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/tun/netcfg"
	"skywire/tun/vpn"
)

// vpnLeakCheck tries to leak and prints what came of it.
func vpnLeakCheck(ctx context.Context, f *applet.Flags, node *app.Client, r vpnReport) error {
	if r.Client == nil || !r.Client.Exit {
		return errors.New("this vpn is no client with an exit: all but the mesh goes where it went without")
	}
	c := vpn.LeakCheck{Device: r.Device, Mark: uint32(r.Mark)}
	ask := func(a netip.Addr) {
		if !a.IsLoopback() && !slices.Contains(c.Resolvers, a) {
			c.Resolvers = append(c.Resolvers, a)
		}
	}
	for _, a := range netcfg.SystemResolvers() {
		ask(a.Addr())
	}
	routers, err := netcfg.Gateways()
	if err != nil {
		return err
	}
	for _, a := range routers {
		ask(a)
	}
	c.Reconnect = func() error { return vpnCall(ctx, node, r, "reconnect", nil) }
	c.Settled = func() bool {
		now, err := vpnAsk(ctx, node, r.Name)
		return err == nil && now.State == vpn.Connected
	}
	found, err := c.Run(ctx)
	if err != nil {
		return err
	}
	if f.JSON {
		err = f.Env().PrintJSON(found)
	} else {
		err = vpnPrintLeaks(f.Env(), found)
	}
	if err == nil && !found.OK {
		err = errors.New("packets leave past the tunnel, see above; the kill switch stops them: vpn client --kill-switch")
		if !found.Sees {
			err = errors.New("the check cannot see what leaves: a packet that must leave was not seen")
		}
	}
	return err
}

func vpnPrintLeaks(e *applet.Env, r vpn.LeakReport) error {
	fmt.Fprintf(e.Stdout, "listened on %s; a packet that must leave was seen: %s\n", strings.Join(r.Watched, " "), vpnYesNo(r.Sees))
	t := e.NewTable("RESULT", "WHAT", "TO", "BOUND TO", "WHILE", "WHY")
	for _, l := range r.Tried {
		result, why := "ok", "not seen outside"
		switch {
		case l.Outside > 0:
			result, why = "LEAK", fmt.Sprintf("%d packets left by %s", l.Outside, l.By)
		case l.Refused != "":
			why = "refused here: " + l.Refused
		}
		t.Row(result, l.What, l.To, l.Via, l.During, why)
	}
	return t.Flush()
}
