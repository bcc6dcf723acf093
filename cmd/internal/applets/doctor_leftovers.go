package applets

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/tun/netcfg"
	"skywire/tun/vpn"
)

// checkLeftovers looks for what killed vpns have left in the box's network: devices, routes, rules, firewall tables and
// resolver settings.
func checkLeftovers(run string) finding {
	g := finding{
		Check: "vpn leftovers", Costs: "packets or names may still go where a killed vpn has sent them",
		Remedy: "skywire doctor --repair, or start the vpn again",
	}
	left, err := netcfg.Leftovers(run)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		g.OK, g.Found = true, "not looked for here"
		return g
	case errors.Is(err, netcfg.ErrNoRights), errors.Is(err, os.ErrPermission):
		g.OK, g.Found = true, "not known without CAP_NET_ADMIN"
		return g
	case err != nil:
		g.Found = err.Error()
		return g
	}
	words := netcfg.ResolverLeftovers(run)
	for _, l := range left {
		words = append(words, leftoverWord(l))
	}
	g.OK, g.Found = len(words) == 0, "none"
	if !g.OK {
		g.Found = strings.Join(words, "; ")
	}
	return g
}

func leftoverWord(l netcfg.Leftover) string {
	if l.Device == "" {
		return l.What
	}
	return l.Device + ": " + l.What
}

// checkKillSwitch says whether a kill switch is as it should be.
func checkKillSwitch(state string) finding {
	g := finding{
		Check: "kill switch", Costs: "packets leave past the tunnel that should not",
		Remedy: "skywire doctor --repair (or vpn killswitch apply); if it is not wanted any more: skywire vpn release",
	}
	_, wanted, err := netcfg.LoadKillSwitch(state, vpn.DefaultDevice)
	if err != nil {
		g.Found = err.Error()
		return g
	}
	is, err := netcfg.KillSwitchState()
	if err != nil {
		g.OK, g.Found = !wanted, "not known: "+err.Error()
		return g
	}
	g.OK = wanted == is.Table && wanted == is.Routes
	g.Found = map[bool]string{true: "in force; skywire vpn release takes it off", false: "none wanted"}[wanted]
	if !g.OK {
		g.Found = fmt.Sprintf("wanted: %s; firewall: %s; routes: %s", vpnYesNo(wanted), vpnYesNo(is.Table), vpnYesNo(is.Routes))
		if !wanted {
			g.Costs, g.Remedy = "nothing gets out but through a tunnel, and no settings say so", "skywire vpn release"
		}
	}
	return g
}

// openWrtFirewall is where OpenWrt says what its fw4 does.
const openWrtFirewall = "/etc/config/firewall"

// checkOffload looks for flow offloading, which takes packets of connections that stand past every firewall and counter.
func checkOffload(path string) finding {
	g := finding{
		Check: "flow offload", OK: true, Found: "not in use",
		Costs:  "connections that were open before a kill switch came, or clients of a gateway moved to a tunnel, go on past it until they end",
		Remedy: "uci set firewall.@defaults[0].flow_offloading=0; uci set firewall.@defaults[0].flow_offloading_hw=0; uci commit firewall; fw4 restart",
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return g // no OpenWrt
	}
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) == 3 && strings.HasPrefix(words[1], "flow_offloading") && strings.Trim(words[2], `'"`) == "1" {
			g.OK, g.Found = false, words[1]+" is on"
		}
	}
	return g
}

// doctorRepair takes back what killed vpns have left, and puts a kill switch that is wanted back.
func doctorRepair(f *applet.Flags) error {
	left, err := netcfg.Repair(f.Run, f.Logger())
	dns := netcfg.ResolverLeftovers(f.Run)
	err = errors.Join(err, netcfg.RepairResolver(f.Run, f.Logger()))
	for _, l := range left {
		f.Env().Talk("doctor", "taken back: %s", leftoverWord(l))
	}
	for _, l := range dns {
		f.Env().Talk("doctor", "taken back: %s", l)
	}
	if _, wanted, _ := netcfg.LoadKillSwitch(f.State, vpn.DefaultDevice); wanted {
		_, e := vpn.Lock(vpn.Config{State: f.State, Run: f.Run, Device: vpn.DefaultDevice}, f.Logger())
		err = errors.Join(err, e)
	}
	return err
}
