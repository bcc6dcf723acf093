package applets

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/tun"
	"skywire/tun/netcfg"
	"skywire/tun/vpn"
)

const vpnKind = "vpn"

func vpnApplet() applet.Applet {
	return applet.Command{
		Name:    "vpn",
		Summary: "the mesh as a network device; exits and subnets through it",
		About: "    vpn up                                   every box gets its mesh address on a device\n" +
			"On the box whose internet access or network is to be used (the server):\n" +
			"    vpn server --exit --allow CLIENT_KEY     (the key: skywire node id, on the client's box)\n" +
			"On the box that uses it:\n" +
			"    vpn client --server SERVER_KEY --exit\n\n" +
			"One process owns the device. A box that is both server and client says so in its config.yaml and runs vpn up:\n" +
			"    vpn:\n" +
			"      server: {subnets: [192.168.9.0/24], allow: [KEY]}\n" +
			"      client: {server: KEY}\n\n" +
			"Needs root or CAP_NET_ADMIN; the node needs neither. Everything is taken back at the end, after a kill by the next start.",
		Verbs: []applet.Verb{
			{Name: "up", Args: "[--dev NAME]", Summary: "mesh addresses on a TUN device, and the roles of config.yaml", Run: vpnUp},
			{Name: "server", Args: "[--exit] [--subnet CIDR]… [--allow KEY]…", Summary: "offer the internet or networks to the mesh", Run: vpnServer},
			{Name: "client", Args: "--server NODE [--exit] [--kill-switch] [--exclude CIDR]…", Summary: "use them", Run: vpnClient},
			{Name: "release", Summary: "take the kill switch off", Run: vpnRelease},
			{Name: "killswitch", Args: "apply|show", Summary: "put the kill switch back early at boot; say what of it is in force", Run: vpnKillSwitch},
			{Name: "status", Args: "[--leak-check] [--json]", Summary: "what the vpn of this box does", Run: vpnStatus},
			{Name: "servers", Args: "[--json]", Summary: "who offers what", Run: vpnServers},
		},
	}.Applet()
}

// vpnConfig is the section "vpn" of config.yaml.
type vpnConfig struct {
	Name   string           `yaml:"name"`
	Device string           `yaml:"device"`
	MTU    int              `yaml:"mtu"`
	Plain  bool             `yaml:"plain"`
	Accept []string         `yaml:"accept"`
	Server *vpnServerConfig `yaml:"server"`
	Client *vpnClientConfig `yaml:"client"`
	DNS    vpnDNS           `yaml:",inline"`
}

// vpnFlags makes the flag set that the three daemons share.
func vpnFlags(e *applet.Env, command, synopsis, about string) (*applet.Flags, *vpnConfig) {
	f := applet.NewFlags(e, command, synopsis, about)
	c := &vpnConfig{}
	f.StringVar(&c.Device, "dev", vpn.DefaultDevice, "`NAME` of the TUN device")
	f.IntVar(&c.MTU, "mtu", tun.DefaultMTU, "of the device (`BYTES`)")
	f.BoolVar(&c.Plain, "plain", false, "no offloads on the device: slower, for drivers that get them wrong")
	f.StringVar(&c.Name, "name", vpnKind, "`NAME` of this app beside its node")
	c.DNS.flags(f)
	return f, c
}

const vpnUpAbout = `Gives this box its mesh address on a TUN device, so that every program reaches every node of the mesh at its
address, and in a cluster at the IPv4 address of its certificate: ping, ssh, anything. Networks behind nodes that run
vpn server --subnet it reaches with --accept; where several nodes lead to one, the first that answers carries it:

    vpn up --accept 192.168.9.0/24@home
    vpn up --accept 10.5.0.0/16@office,office-backup

Also plays the roles server and client when config.yaml has sections vpn.server and
vpn.client, both on the one device.`

func vpnUp(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn up", "[--dev NAME] [--accept CIDR@NODE]… [flags]", vpnUpAbout)
	f.ListVar(&c.Accept, "accept", "`CIDR@NODE` of a network behind other nodes, NODE,NODE where several lead there (repeatable)")
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, "vpn", c)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runVPN(ctx, f, c) })
}

// vpnPositional opens the words of 2017.
func vpnPositional(e *applet.Env, words []string, form string, want int) (name string, err error) {
	if len(words) != want {
		return "", applet.Usagef("want flags alone, or the 2017 form %s", form)
	}
	if err := nodeAddr2017(e, "vpn", words[1]); err != nil {
		return "", err
	}
	return words[0], nil
}

// runVPN runs the app until ctx ends.
func runVPN(ctx context.Context, f *applet.Flags, c *vpnConfig) error {
	// What is wrong with the arguments shows before anything is touched; keys of --allow need the node.
	cfg, err := vpnSettings(f, c)
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	if err := tun.Available(); err != nil {
		return err
	}
	if err := vpnLock(f, cfg); err != nil {
		return err
	}
	node, err := awaitNode(ctx, f, startWait(f.Env()))
	if err != nil {
		return err
	}
	defer node.Close()
	if cfg.Server != nil {
		if err := vpnAllow(ctx, f.Env(), node, cfg.Server); err != nil {
			return err
		}
	}
	a, err := vpn.New(cfg, readyVPN{vpn.NewNode(node), f.Env()})
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	err = a.Run(ctx)
	if errors.Is(err, vpn.ErrRefused) {
		return applet.WithCode(applet.Refused, err)
	}
	if errors.Is(err, netcfg.ErrRouteExists) {
		return fmt.Errorf("%w; if another vpn runs here (skywire vpn status): one process plays all roles of a box, see vpn --help", err)
	}
	if errors.Is(err, signal.ErrRefused) && cfg.Client != nil {
		return fmt.Errorf("%w; the server allows this box with: vpn server --allow %s", err, node.Self().Key)
	}
	return err
}

// readyVPN tells viscript that the vpn serves when it says so to the node.
type readyVPN struct {
	vpn.Node
	env *applet.Env
}

// Status implements vpn.Node.
func (r readyVPN) Status(v any) error {
	if s, ok := v.(vpn.Status); ok && (s.State == vpn.Up || s.State == vpn.Connected) {
		ready(r.env)
	}
	return r.Node.Status(v)
}

// vpnSettings turns words into the app's settings.
func vpnSettings(f *applet.Flags, c *vpnConfig) (vpn.Config, error) {
	out := vpn.Config{
		Name: c.Name, Run: f.Run, State: f.State, Device: c.Device, MTU: c.MTU, Plain: c.Plain, Log: f.Logger(),
	}
	var err error
	if out.Accept, err = vpnAccept(c.Accept); err != nil {
		return out, err
	}
	if out.DNS, err = c.DNS.config(c.Client != nil && c.Client.Exit); err != nil {
		return out, err
	}
	if c.Server != nil {
		if out.Server, err = c.Server.settings(); err != nil {
			return out, err
		}
	}
	if c.Client != nil {
		if out.Client, err = c.Client.settings(); err != nil {
			return out, err
		}
	}
	return out, nil
}

func vpnPrefixes(flag string, words []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, w := range words {
		p, err := vpnPrefix(flag, w)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// vpnPrefix reads a CIDR, or one address.
func vpnPrefix(flag, word string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(word)
	if a, e := netip.ParseAddr(word); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return p, fmt.Errorf("--%s %q is no CIDR such as 192.168.9.0/24", flag, word)
	}
	return p.Masked(), nil
}

func vpnYesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func vpnJoin(list []netip.Prefix) string {
	if len(list) == 0 {
		return "none"
	}
	var words []string
	for _, p := range list {
		words = append(words, p.String())
	}
	return strings.Join(words, " ")
}

// vpnOffer is one element of vpn servers --json.
type vpnOffer struct {
	Key    key.Public `json:"key"`
	Name   string     `json:"name"`
	Online bool       `json:"online"`
	RTT    *float64   `json:"rtt_ms"` // null: not known
	Offers string     `json:"offers"`
}

func vpnServers(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "vpn servers", "[--json]", "Lists the vpn servers of the mesh, the nearest first. Whether one allows this node shows when it is used.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		services, err := node.Services(ctx, vpn.Service)
		if err != nil {
			return err
		}
		sort.SliceStable(services, func(i, j int) bool { return vpn.Nearer(services[i], services[j]) < 0 })
		all := []vpnOffer{}
		for _, s := range services {
			o := vpnOffer{Key: s.Key, Name: s.Node, Online: s.Online, Offers: s.Meta}
			if s.RTT > 0 {
				o.RTT = &s.RTT
			}
			all = append(all, o)
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("KEY", "NAME", "ONLINE", "RTT", "OFFERS")
		for _, o := range all {
			rtt := ""
			if o.RTT != nil {
				rtt = fmt.Sprintf("%.1f ms", *o.RTT)
			}
			t.Row(o.Key, o.Name, o.Online, rtt, o.Offers)
		}
		return t.Flush()
	})
}
