package applets

import (
	"context"

	"skywire/cmd/internal/applet"
	"skywire/tun/vpn"
)

type vpnClientConfig struct {
	Server  string   `yaml:"server"`
	Servers []string `yaml:"servers"`
	Stay    bool     `yaml:"stay"`
	Exit    bool     `yaml:"exit"`
	Exclude []string `yaml:"exclude"`
	Accept  []string `yaml:"accept"`

	vpnSplitConfig `yaml:",inline"`

	KillSwitch bool `yaml:"kill_switch"`
	LAN        bool `yaml:"lan"`
	release    bool
}

// settings turns the words into the client's settings.
func (c *vpnClientConfig) settings() (*vpn.ClientConfig, error) {
	exclude, err := vpnPrefixes("exclude", c.Exclude)
	if err != nil {
		return nil, err
	}
	accept, err := vpnPrefixes("accept", c.Accept)
	if err != nil {
		return nil, err
	}
	servers := c.Servers
	if len(servers) == 0 && c.Server != "" {
		servers = []string{c.Server}
	}
	out := &vpn.ClientConfig{
		Servers: servers, Stay: c.Stay, Exit: c.Exit, Exclude: exclude, Accept: accept,
		KillSwitch: c.KillSwitch, Release: c.release, LAN: c.LAN,
	}
	if err := c.vpnSplitConfig.settings(out); err != nil {
		return nil, err
	}
	return out, out.Validate()
}

const vpnClientAbout = `Uses a vpn server of the mesh: an address from it, the private networks it offers, and with --exit all traffic.

    vpn client --server NODE --exit              everything but the LAN this box is on, IPv4 and, where the exit has it, IPv6
    vpn client --server NODE                     only the networks that the server offers
    vpn client --server NODE --exit --exclude 203.0.113.0/24

NODE is a key, petname, name.mesh or mesh address; auto, or nothing, takes the nearest that offers a vpn. Several are used
in the order given: when the first is lost the next takes over within seconds, and the first is returned to when it has
been back for half a minute (not with --stay). Public networks that a server offers are taken only with --accept CIDR.
With --exit IPv6 that the exit cannot carry is refused, not leaked. When server or node go away, routes stay until they
are back.

    vpn client --server NODE --exit --kill-switch

The kill switch lets nothing out of this box but through the tunnel: no packet of its own or of its clients, IPv4 or IPv6,
save the mesh's own, DHCP, neighbour discovery and --exclude. It is the kernel's (nftables and unreachable routes), so it
holds when every process of ours is killed, and is put back at the next start, until: vpn release. Have vpn killswitch
apply run early at boot, see there. The LAN is shut out, too, since a foreign LAN can pose as any network; --lan lets
private and link-local addresses through, for a box at home or one that is administered over its LAN.` + vpnSplitAbout + `

The 2017 form is understood: vpn client NAME NODE_ADDR PORT. The node is the one of this box; PORT is not needed now.`

func vpnClient(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn client", "--server NODE [--exit] [flags]", vpnClientAbout)
	v := &vpnClientConfig{}
	c.Client = v
	f.ListVar(&v.Servers, "server", "`NODE` to use, or auto (repeatable: the preferred first)")
	f.BoolVar(&v.Stay, "stay", false, "with the server in use, even when a preferred one is back")
	f.BoolVar(&v.Exit, "exit", false, "send everything through it")
	f.ListVar(&v.Exclude, "exclude", "`CIDR` that stays out of the tunnel (repeatable)")
	f.ListVar(&v.Accept, "accept", "public `CIDR` that the server may take over (repeatable)")
	v.flags(f)
	f.BoolVar(&v.KillSwitch, "kill-switch", false, "nothing leaves this box but through the tunnel, until vpn release")
	f.BoolVar(&v.release, "no-kill-switch", false, "take the kill switch off, as vpn release does")
	f.BoolVar(&v.LAN, "lan", false, "the kill switch lets private and link-local addresses be reached")
	words, err := f.Parse(0, 3)
	if err == nil {
		err = f.Overlay(openSections, "vpn", c)
	}
	if err == nil && len(words) > 0 {
		c.Name, err = vpnPositional(e, words, "NAME NODE_ADDR PORT", 3)
	}
	if err != nil {
		return f.Exit(err)
	}
	c.Server = nil
	return f.Duty(ctx, func(ctx context.Context) error { return runVPN(ctx, f, c) })
}
