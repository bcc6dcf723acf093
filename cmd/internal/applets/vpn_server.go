package applets

import (
	"context"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/tun/vpn"
)

type vpnServerConfig struct {
	Exit         bool     `yaml:"exit"`
	Subnets      []string `yaml:"subnets"`
	Allow        []string `yaml:"allow"`
	AllowPrivate bool     `yaml:"allow_private"`
	NoNAT        bool     `yaml:"no_nat"`
	Pool         string   `yaml:"pool"`
}

// settings turns the words into the server's settings.
func (c *vpnServerConfig) settings() (*vpn.ServerConfig, error) {
	subnets, err := vpnPrefixes("subnet", c.Subnets)
	if err != nil {
		return nil, err
	}
	pool := vpn.DefaultPool()
	if c.Pool != "" {
		if pool, err = vpnPrefix("pool", c.Pool); err != nil {
			return nil, err
		}
	}
	return &vpn.ServerConfig{
		Exit: c.Exit, Subnets: subnets, Allow: c.Allow, AllowPrivate: c.AllowPrivate, NoNAT: c.NoNAT, Pool: pool,
	}, nil
}

const vpnServerAbout = `Offers what this box reaches to nodes that are allowed: the internet with --exit, networks behind it with --subnet.

    vpn server --exit --allow KEY                the internet (KEY: skywire node id, on the client's box; or a petname)
    vpn server --subnet 192.168.9.0/24 --allow KEY
    vpn server --exit --allow any                whoever can open a session with this node
    vpn server --exit                            members, in a cluster; nobody, in an open mesh

Each client gets an IPv4 address, always the same, from 100.64.0.0/10 (--pool). Its packets leave under this box's own
addresses, by nftables; --no-nat leaves that to you. An exit does not lead to private ranges or to this box's own
services: offer your LAN with --subnet, or all private ranges with --allow-private.

The 2017 form is understood: vpn server NAME NODE_ADDR. The node is the one of this box, as ever with --run.`

func vpnServer(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn server", "[--exit] [--subnet CIDR]… [--allow KEY]… [flags]", vpnServerAbout)
	v := &vpnServerConfig{}
	c.Server = v
	f.BoolVar(&v.Exit, "exit", false, "offer the internet")
	f.ListVar(&v.Subnets, "subnet", "`CIDR` of a network behind this box to offer (repeatable)")
	f.ListVar(&v.Allow, "allow", "`KEY` or petname of a node that may use it, or any (repeatable)")
	f.BoolVar(&v.AllowPrivate, "allow-private", false, "the exit leads to private ranges, too")
	f.BoolVar(&v.NoNAT, "no-nat", false, "clients keep their addresses; routes back are your matter")
	f.StringVar(&v.Pool, "pool", vpn.DefaultPool().String(), "`CIDR` to give clients addresses from")
	words, err := f.Parse(0, 2)
	if err == nil {
		err = f.Overlay(openSections, "vpn", c)
	}
	if err == nil && len(words) > 0 {
		c.Name, err = vpnPositional(e, words, "NAME NODE_ADDR", 2)
	}
	if err != nil {
		return f.Exit(err)
	}
	c.Client = nil
	return f.Duty(ctx, func(ctx context.Context) error { return runVPN(ctx, f, c) })
}

// vpnAllowed opens the words of --allow in the form that services state.
func vpnAllowed(ctx context.Context, node *app.Client, words []string) ([]string, error) {
	keys, everybody, err := allowed(ctx, node, words)
	if err != nil {
		return nil, err
	}
	if everybody {
		return []string{app.AnyMember}, nil
	}
	var all []string
	for _, k := range keys {
		all = append(all, k.String())
	}
	return all, nil
}

// vpnPrintServer prints the server's part of the status, a line a call of p.
func vpnPrintServer(p func(format string, args ...any), s *vpn.ServerStatus) {
	offer := vpnJoin(s.Subnets)
	if s.Exit {
		offer = strings.TrimSpace("the internet (IPv6: " + vpnYesNo(s.IPv6) + ") " + offer)
	}
	p("  server at %s: offers %s; %d clients", s.IPv4, offer, len(s.Clients))
	for _, c := range s.Clients {
		p("    %s %s exit: %s, since %s", c.IPv4, c.Key, vpnYesNo(c.Exit), c.Since.Format(time.RFC3339))
	}
}
