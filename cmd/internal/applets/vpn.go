package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/signal/auto"
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
			{Name: "client", Args: "--server NODE [--exit] [--exclude CIDR]…", Summary: "use them", Run: vpnClient},
			{Name: "status", Args: "[--json]", Summary: "what the vpn of this box does", Run: vpnStatus},
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
	Server *vpnServerConfig `yaml:"server"`
	Client *vpnClientConfig `yaml:"client"`
}

type vpnServerConfig struct {
	Exit         bool     `yaml:"exit"`
	Subnets      []string `yaml:"subnets"`
	Allow        []string `yaml:"allow"`
	AllowPrivate bool     `yaml:"allow_private"`
	NoNAT        bool     `yaml:"no_nat"`
	Pool         string   `yaml:"pool"`
}

type vpnClientConfig struct {
	Server  string   `yaml:"server"`
	Exit    bool     `yaml:"exit"`
	Exclude []string `yaml:"exclude"`
	Accept  []string `yaml:"accept"`
}

// vpnFlags makes the flag set that the three daemons share.
func vpnFlags(e *applet.Env, command, synopsis, about string) (*applet.Flags, *vpnConfig) {
	f := applet.NewFlags(e, command, synopsis, about)
	c := &vpnConfig{}
	f.StringVar(&c.Device, "dev", vpn.DefaultDevice, "`NAME` of the TUN device")
	f.IntVar(&c.MTU, "mtu", tun.DefaultMTU, "of the device (`BYTES`)")
	f.BoolVar(&c.Plain, "plain", false, "no offloads on the device: slower, for drivers that get them wrong")
	f.StringVar(&c.Name, "name", vpnKind, "`NAME` of this app beside its node")
	return f, c
}

const vpnUpAbout = `Gives this box its mesh address on a TUN device, so that every program reaches every node of the mesh at its
address: ping, ssh, anything. Also plays the roles server and client when config.yaml has sections vpn.server and
vpn.client, both on the one device.`

func vpnUp(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn up", "[--dev NAME] [flags]", vpnUpAbout)
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, "vpn", c)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runVPN(ctx, f, c) })
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

const vpnClientAbout = `Uses a vpn server of the mesh: an address from it, the private networks it offers, and with --exit all traffic.

    vpn client --server NODE --exit              everything but the LAN this box is on, IPv4 and, where the exit has it, IPv6
    vpn client --server NODE                     only the networks that the server offers
    vpn client --server NODE --exit --exclude 203.0.113.0/24

NODE is a key, petname, name.mesh or mesh address; auto, or nothing, takes the nearest that offers a vpn. Public networks
that a server offers are taken only with --accept CIDR. With --exit IPv6 that the exit cannot carry is refused, not
leaked. When server or node go away, routes stay until they are back.

The 2017 form is understood: vpn client NAME NODE_ADDR PORT. The node is the one of this box; PORT is not needed now.`

func vpnClient(ctx context.Context, e *applet.Env) int {
	f, c := vpnFlags(e, "vpn client", "--server NODE [--exit] [flags]", vpnClientAbout)
	v := &vpnClientConfig{}
	c.Client = v
	f.StringVar(&v.Server, "server", "auto", "`NODE` to use, or auto")
	f.BoolVar(&v.Exit, "exit", false, "send everything through it")
	f.ListVar(&v.Exclude, "exclude", "`CIDR` that stays out of the tunnel (repeatable)")
	f.ListVar(&v.Accept, "accept", "public `CIDR` that the server may take over (repeatable)")
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
	node, err := awaitNode(ctx, f, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	if cfg.Server != nil {
		if cfg.Server.Allow, err = vpnAllowed(ctx, node, cfg.Server.Allow); err != nil {
			return err
		}
		if len(cfg.Server.Allow) == 0 {
			f.Env().Talk("vpn", "nobody may use this server: the mesh is open and no key is allowed. Add --allow KEY (skywire node id, on the client's box), or --allow any")
		}
	}
	a, err := vpn.New(cfg, readyVPN{vpn.NewNode(node)})
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
type readyVPN struct{ vpn.Node }

// Status implements vpn.Node.
func (r readyVPN) Status(v any) error {
	if s, ok := v.(vpn.Status); ok && (s.State == vpn.Up || s.State == vpn.Connected) {
		auto.Ready()
	}
	return r.Node.Status(v)
}

// vpnSettings turns words into the app's settings.
func vpnSettings(f *applet.Flags, c *vpnConfig) (vpn.Config, error) {
	out := vpn.Config{
		Name: c.Name, Run: f.Run, State: f.State, Device: c.Device, MTU: c.MTU, Plain: c.Plain, Log: f.Logger(),
	}
	if s := c.Server; s != nil {
		subnets, err := vpnPrefixes("subnet", s.Subnets)
		if err != nil {
			return out, err
		}
		pool := vpn.DefaultPool()
		if s.Pool != "" {
			if pool, err = vpnPrefix("pool", s.Pool); err != nil {
				return out, err
			}
		}
		out.Server = &vpn.ServerConfig{
			Exit: s.Exit, Subnets: subnets, Allow: s.Allow, AllowPrivate: s.AllowPrivate, NoNAT: s.NoNAT, Pool: pool,
		}
	}
	if s := c.Client; s != nil {
		exclude, err := vpnPrefixes("exclude", s.Exclude)
		if err != nil {
			return out, err
		}
		accept, err := vpnPrefixes("accept", s.Accept)
		if err != nil {
			return out, err
		}
		out.Client = &vpn.ClientConfig{Server: s.Server, Exit: s.Exit, Exclude: exclude, Accept: accept}
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

// vpnReport is what vpn status --json prints.
type vpnReport struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	vpn.Status
}

func vpnStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "vpn status", "[--json]", "Prints what the vpn of this box does: state, server, addresses, bytes, and where packets to the internet would go.")
	name := f.String("name", "", "`NAME` of the app, where several run")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		r, err := vpnAsk(ctx, node, *name)
		if err != nil {
			return err
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
		err := node.Call(ctx, "app.call", app.CallParams{App: a.Name, Method: "status", Params: json.RawMessage("{}")}, &r.Status)
		return r, err
	}
	return vpnReport{}, applet.WithCode(applet.NotRunning, errors.New("no vpn runs beside this node; start one with: skywire vpn up"))
}

func vpnPrint(e *applet.Env, r vpnReport) {
	p := func(format string, args ...any) { fmt.Fprintf(e.Stdout, format+"\n", args...) }
	p("%s (pid %d): %s on %s, address %s, mtu %d, up %s", r.Name, r.PID, r.State, r.Device, r.Address, r.MTU,
		time.Since(r.Started).Round(time.Second))
	p("  %s received, %s sent", applet.Bytes(r.RxBytes), applet.Bytes(r.TxBytes))
	if s := r.Server; s != nil {
		offer := vpnJoin(s.Subnets)
		if s.Exit {
			offer = strings.TrimSpace("the internet (IPv6: " + vpnYesNo(s.IPv6) + ") " + offer)
		}
		p("  server at %s: offers %s; %d clients", s.IPv4, offer, len(s.Clients))
		for _, c := range s.Clients {
			p("    %s %s exit: %s, since %s", c.IPv4, c.Key, vpnYesNo(c.Exit), c.Since.Format(time.RFC3339))
		}
	}
	c := r.Client
	if c == nil {
		return
	}
	p("  client of %s", c.Server)
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
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
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
