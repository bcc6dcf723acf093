package applets

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/tun/vpn"
)

type vpnServerConfig struct {
	Exit           bool        `yaml:"exit"`
	AllowExit      []string    `yaml:"allow_exit"`
	Subnets        []string    `yaml:"subnets"`
	Allow          []string    `yaml:"allow"`
	AllowPrivate   bool        `yaml:"allow_private"`
	ClientToClient bool        `yaml:"client_to_client"`
	Closed         bool        `yaml:"closed"`
	Rate           applet.Rate `yaml:"rate"`
	RateUp         applet.Rate `yaml:"rate_up"`
	RateDown       applet.Rate `yaml:"rate_down"`
	Quota          string      `yaml:"quota"`
	NoNAT          bool        `yaml:"no_nat"`
	Pool           string      `yaml:"pool"`
}

// settings turns the words into the server's settings; names of nodes stay what they are, see vpnAllow.
func (c *vpnServerConfig) settings() (*vpn.ServerConfig, error) {
	out := &vpn.ServerConfig{
		Exit: c.Exit, AllowExit: c.AllowExit, Allow: c.Allow, AllowPrivate: c.AllowPrivate, Peers: c.ClientToClient,
		Closed: c.Closed, NoNAT: c.NoNAT, Pool: vpn.DefaultPool(),
		Limit: vpn.Limit{Up: uint64(c.Rate), Down: uint64(c.Rate)},
	}
	if c.RateUp > 0 {
		out.Limit.Up = uint64(c.RateUp)
	}
	if c.RateDown > 0 {
		out.Limit.Down = uint64(c.RateDown)
	}
	for _, w := range c.Subnets {
		cidr, who, given := strings.Cut(w, "=")
		p, err := vpnPrefix("subnet", cidr)
		if err != nil {
			return nil, err
		}
		n := vpn.Subnet{Prefix: p}
		for _, word := range strings.Split(who, ",") {
			if word != "" {
				n.Allow = append(n.Allow, word)
			}
		}
		if given && len(n.Allow) == 0 {
			return nil, fmt.Errorf("--subnet %q: nobody stands after the =", w)
		}
		out.Subnets = append(out.Subnets, n)
	}
	var err error
	if c.Quota != "" {
		if out.Limit.Quota, out.Limit.Period, err = vpnQuota(c.Quota); err != nil {
			return nil, err
		}
	}
	if c.Pool != "" {
		out.Pool, err = vpnPrefix("pool", c.Pool)
	}
	return out, err
}

// vpnQuota reads 50GB/month.
func vpnQuota(text string) (bytes uint64, period vpn.Period, err error) {
	size, per, _ := strings.Cut(text, "/")
	number := strings.TrimRight(strings.TrimSuffix(size, "B"), "kMGT")
	unit := map[string]float64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[strings.TrimSuffix(size[len(number):], "B")]
	v, e := strconv.ParseFloat(number, 64)
	period = vpn.Period(per)
	known := period == vpn.Ever || period == vpn.Day || period == vpn.Week || period == vpn.Month
	if e != nil || !(v*unit >= 1 && v*unit <= 1e18) || !known {
		return 0, "", fmt.Errorf("--quota %q: want bytes and a period, such as 50GB/month (or /week, /day; without one: for ever)", text)
	}
	return uint64(v * unit), period, nil
}

const vpnServerAbout = `Offers what this box reaches to nodes that are allowed: the internet with --exit, networks behind it with --subnet.

    vpn server --exit --allow KEY                the internet (KEY: skywire node id, on the client's box; or a petname)
    vpn server --subnet 192.168.9.0/24 --allow KEY
    vpn server --exit --allow @family            members of the cluster whose certificate has the tag family
    vpn server --exit --allow any                whoever can open a session with this node
    vpn server --exit                            members, in a cluster; nobody, in an open mesh
    vpn server --allow-exit @family --subnet 192.168.9.0/24=@home,KEY
    vpn server --exit --allow any --rate 20Mbit --quota 50GB/month

What names nobody of its own is for those of --allow. Who is revoked, or loses a tag, is cut off at once, connections
included. Each client gets an IPv4 address, that of its certificate or one from 100.64.0.0/10 (--pool), always the same.
Its packets leave under this box's own addresses, by nftables, IPv6 as well; --no-nat leaves that to you.

Clients do not reach each other through this box (--client-to-client lets those that take its pool as a subnet: vpn
client --accept 100.64.0.0/10), nor its own networks, unless a --subnet says so. An exit does not lead to private ranges; --allow-private opens these and this box's own networks. Services of
this box at its mesh address are a matter of the mesh, as without a server: --closed leaves ICMP and names alone.

--rate holds each client to so much in each direction, --quota to so many bytes both ways together; the kernel sees to
both. Periods begin at midnight UTC; what was used outlives a restart, but for the last minute before a power cut.

The 2017 form is understood: vpn server NAME NODE_ADDR. The node is the one of this box, as ever with --run.`

func vpnServer(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn server", "[--exit] [--subnet CIDR[=WHO,…]]… [--allow WHO]… [flags]", vpnServerAbout)
	v := &vpnServerConfig{}
	c.Server = v
	f.BoolVar(&v.Exit, "exit", false, "offer the internet")
	f.ListVar(&v.AllowExit, "allow-exit", "`WHO` may use the exit, instead of those of --allow (repeatable; implies --exit)")
	f.ListVar(&v.Subnets, "subnet", "`CIDR` of a network behind this box to offer, or CIDR=WHO,WHO (repeatable)")
	f.ListVar(&v.Allow, "allow", "`WHO` may use it: a key, petname, @TAG or any (repeatable)")
	f.BoolVar(&v.ClientToClient, "client-to-client", false, "clients reach each other through this box")
	f.BoolVar(&v.Closed, "closed", false, "of this box itself nothing but ICMP and names is reached from the device")
	f.TextVar(&v.Rate, "rate", applet.Rate(0), "`RATE` of each client in each direction, such as 20Mbit")
	f.TextVar(&v.RateUp, "rate-up", applet.Rate(0), "`RATE` from the client, where it differs")
	f.TextVar(&v.RateDown, "rate-down", applet.Rate(0), "`RATE` to the client, where it differs")
	f.StringVar(&v.Quota, "quota", "", "`BYTES` of each client, such as 50GB/month, /week or /day")
	f.BoolVar(&v.AllowPrivate, "allow-private", false, "the exit leads to private ranges and this box's own networks, too")
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

// vpnAllow opens the names of who may use what, in the form that services state.
func vpnAllow(ctx context.Context, e *applet.Env, node *app.Client, s *vpn.ServerConfig) (err error) {
	if s.Allow, err = allowWords(ctx, node, s.Allow); err != nil {
		return err
	}
	nobody := len(s.Allow) == 0 && s.Exit && len(s.AllowExit) == 0
	if len(s.AllowExit) > 0 {
		if s.AllowExit, err = allowWords(ctx, node, s.AllowExit); err != nil {
			return err
		}
	}
	for i := range s.Subnets {
		n := &s.Subnets[i]
		if len(n.Allow) == 0 {
			nobody = nobody || len(s.Allow) == 0
			continue
		}
		if n.Allow, err = allowWords(ctx, node, n.Allow); err != nil {
			return err
		}
	}
	if nobody {
		e.Talk("vpn", "nobody may use this server: the mesh is open and no key is allowed. Add --allow KEY (skywire node id, on the client's box), or --allow any")
	}
	return nil
}

// vpnPrintServer prints the server's part of the status, a line a call of p.
func vpnPrintServer(p func(format string, args ...any), s *vpn.ServerStatus) {
	offer := vpnJoin(s.Subnets)
	if s.Exit {
		offer = strings.TrimSpace("the internet (IPv6: " + vpnYesNo(s.IPv6) + ") " + offer)
	}
	p("  server at %s: offers %s; %d clients", s.IPv4, offer, len(s.Clients))
	if s.UpLimit+s.DownLimit > 0 {
		p("    each client: at most %s from it, %s to it", vpnRate(s.UpLimit), vpnRate(s.DownLimit))
	}
	if q := s.Quota; q != nil {
		until := "for ever"
		if !q.Until.IsZero() {
			until = "until " + q.Until.Format(time.RFC3339)
		}
		p("    each client: quota of %s %s", applet.Bytes(q.Bytes), until)
	}
	for _, c := range s.Clients {
		may := vpnJoin(c.Subnets)
		if c.Exit {
			may = strings.TrimSuffix("the internet "+may, " none")
		}
		left := ""
		if c.QuotaLeft != nil {
			left = ", " + applet.Bytes(*c.QuotaLeft) + " of its quota left"
			if *c.QuotaLeft == 0 {
				left = ", quota used up"
			}
		}
		p("    %s %s reaches %s, since %s", c.IPv4, strings.TrimSpace(c.Name+" "+c.Key), may, c.Since.Format(time.RFC3339))
		p("      %s from it (now %s), %s to it (now %s)%s", applet.Bytes(c.UpBytes), vpnRate(uint64(c.UpRate)),
			applet.Bytes(c.DownBytes), vpnRate(uint64(c.DownRate)), left)
	}
}

// vpnRate writes bits a second.
func vpnRate(bits uint64) string { return applet.Rate(bits/8).String() + "/s" }

// vpnAccept reads CIDR@NODE,NODE of vpn up.
func vpnAccept(words []string) ([]vpn.Accepted, error) {
	var all []vpn.Accepted
	for _, w := range words {
		cidr, nodes, ok := strings.Cut(w, "@")
		p, err := vpnPrefix("accept", cidr)
		if err != nil {
			return nil, err
		}
		a := vpn.Accepted{Prefix: p}
		for _, n := range strings.Split(nodes, ",") {
			if n != "" {
				a.Servers = append(a.Servers, n)
			}
		}
		if !ok || len(a.Servers) == 0 {
			return nil, fmt.Errorf("--accept %q: want CIDR@NODE, or CIDR@NODE,NODE where several lead there", w)
		}
		all = append(all, a)
	}
	return all, nil
}

// vpnPrintUp prints what vpn up adds: the certificate's address, subnets of others.
func vpnPrintUp(p func(format string, args ...any), s vpn.Status) {
	if s.IPv4.IsValid() {
		p("  IPv4 address %s, by the certificate", s.IPv4)
	}
	for _, n := range s.Accepted {
		switch {
		case n.Refused != "":
			p("  subnet %s is not taken: %s", n.Prefix, n.Refused)
		case n.Through == "":
			p("  subnet %s is not reached", n.Prefix)
		default:
			p("  subnet %s through %s", n.Prefix, n.Through)
		}
		for _, w := range n.Servers {
			switch {
			case w.Why != "":
				p("    %s: %s", w.Name, w.Why)
			default:
				p("    %s: up since %s, rtt %.1f ms", w.Name, w.Since.Format(time.RFC3339), w.RTT)
			}
		}
	}
}
