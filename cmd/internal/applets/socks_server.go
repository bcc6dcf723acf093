package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/socks/proxy"
)

type socksServerConfig struct {
	Name         string        `yaml:"name"`
	Allow        []string      `yaml:"allow"`
	AllowPrivate bool          `yaml:"allow_private"`
	Policy       []string      `yaml:"policy"`
	Rate         applet.Rate   `yaml:"rate"`
	Idle         time.Duration `yaml:"idle"`
	Connections  int           `yaml:"connections"`
	PerKey       int           `yaml:"per_key"`
	NewPerKey    int           `yaml:"new_per_key"`
	NoUDP        bool          `yaml:"no_udp"`
	Associations int           `yaml:"associations"`
	Trackers     []string      `yaml:"trackers"`
}

const socksServerAbout = `Makes this box an exit: nodes that are allowed open TCP connections, and UDP ports, that come out here.

    socks server --allow KEY [--allow KEY…]      these nodes (KEY: skywire node id, on the client's box; or a petname)
    socks server --allow @TAG                    members of the cluster whose certificate has the tag
    socks server --allow any                     whoever can open a session with this node
    socks server                                 members, in a cluster; nobody, in an open mesh

Where it leads is a list of rules, of which the first that matches decides:

    --policy 'deny tcp *:25'                     everything at port 25 (the default for SMTP, unless a rule before allows it)
    --policy 'allow 192.168.1.0/24:80-443'       ports 80 to 443 of a network, TCP and UDP
    --policy 'allow .example.com' --policy 'deny *'     example.com and all names below it, nothing else

    allow|deny  [tcp|udp]  TARGET[:PORTS]        TARGET: *, address, prefix, name, .name; [v6]:ports; PORTS: *, N or N-M

Rules for addresses look at the address that is about to be connected to, whatever name led to it. After the rules,
addresses local to this box are closed (private, loopback, link-local, shared, its own) unless --allow-private is given:
then your LAN and the services of this box are open to those allowed. A rule opens such an address only if it names a
network within the local ones (not *, 0.0.0.0/0 or a name), and an address of this box only by naming that very
address. Addresses of the mesh itself, and those that mean nobody or many, stay closed in any case.

--rate holds for all TCP connections of one client together, in each direction, and for all its UDP on its own.

The 2017 form is understood: socks server NAME NODE_ADDR PORT. The node is the one of this box; PORT is not needed now.`

func socksServer(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks server", "[--allow KEY]… [flags]", socksServerAbout)
	var c socksConfig
	v := &c.Server
	f.ListVar(&v.Allow, "allow", "`KEY`, petname or @TAG of nodes that may use the exit, or any (repeatable)")
	f.BoolVar(&v.AllowPrivate, "allow-private", false, "lead to private and local addresses too")
	f.ListVar(&v.Policy, "policy", "`RULE` of where the exit leads; the first that matches decides (repeatable)")
	f.TextVar(&v.Rate, "rate", v.Rate, "most that one client moves (`RATE`, such as 20Mbit; 0: no limit)")
	f.DurationVar(&v.Idle, "idle", 0, "end TCP connections without a byte for this long (`DURATION`; 0: never)")
	f.IntVar(&v.Connections, "connections", 2048, "most connections at once (`N`)")
	f.IntVar(&v.PerKey, "per-key", 1024, "most connections at once of one client (`N`)")
	f.IntVar(&v.NewPerKey, "new-per-key", 0, "most new connections of one client in a second (`N`; 0: no limit)")
	f.IntVar(&v.Associations, "associations", 128, "most UDP ports at once (`N`)")
	f.BoolVar(&v.NoUDP, "no-udp", false, "TCP only")
	f.StringVar(&v.Name, "name", socksServerKind, "`NAME` of this app beside its node")
	f.ListVar(&v.Trackers, "tracker", "announce the exit to the apptracker of this `NODE` (repeatable)")
	words, err := f.Parse(0, 3)
	if err == nil {
		err = f.Overlay(openSections, "socks", &c)
	}
	if err == nil && len(words) > 0 {
		v.Name, _, err = socksPositional(e, words)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runSocksServer(ctx, f, *v) })
}

func runSocksServer(ctx context.Context, f *applet.Flags, v socksServerConfig) error {
	if err := checkTrackers(v.Trackers); err != nil {
		return err
	}
	node, err := awaitNode(ctx, f, startWait(f.Env()))
	if err != nil {
		return err
	}
	defer node.Close()
	allow, err := allowWords(ctx, node, v.Allow)
	if err != nil {
		return err
	}
	if len(allow) == 0 {
		f.Env().Talk("socks", "nobody may use this exit: the mesh is open and no key is allowed. Add --allow KEY (skywire node id, on the client's box), or --allow any")
	}
	c := proxy.ExitConfig{
		Node: proxy.ForExit(node), AllowPrivate: v.AllowPrivate, Policy: v.Policy, NoUDP: v.NoUDP,
		Mesh: node.Self().Prefix, Connections: v.Connections, PerKey: v.PerKey, NewPerKey: v.NewPerKey, Associations: v.Associations,
		Limits: proxy.Limits{Rate: uint64(v.Rate), Idle: v.Idle}, Log: f.Logger(),
	}
	for _, w := range allow {
		switch k, err := key.Parse(w); {
		case err == nil:
			c.Allow = append(c.Allow, k)
		case w == app.AnyMember:
			c.AllowAny = true
		default:
			c.AllowTags = append(c.AllowTags, w)
		}
	}
	x, err := proxy.NewExit(c)
	if errors.Is(err, proxy.ErrRule) {
		return applet.WithCode(applet.BadUsage, err)
	}
	if err != nil {
		return err
	}
	services := []app.Service{{Name: proxy.Service, Type: proxy.Service, Allow: allow}}
	if !v.NoUDP {
		services = append(services, app.Service{Name: proxy.ServiceUDP, Type: proxy.ServiceUDP, Allow: allow, Packets: true})
	}
	if err := node.Register(ctx, app.Registration{Name: v.Name, Kind: socksServerKind, Services: services}); err != nil {
		return fmt.Errorf("register %q with the node: %w", v.Name, err)
	}
	if len(allow) > 0 {
		f.Logger().Info("exit open", "everybody", c.AllowAny, "keys", len(c.Allow), "private", v.AllowPrivate)
	}
	return besideNode(ctx, f, node, func(ctx context.Context) error {
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, where := range v.Trackers {
			wg.Go(func() { announceExit(ctx, node, where, f.Logger()) })
		}
		return x.Run(ctx)
	})
}

func socksPrintServer(e *applet.Env, r socksReport) error {
	var s proxy.ExitStatus
	if len(r.Status) > 0 {
		if err := json.Unmarshal(r.Status, &s); err != nil {
			return err
		}
	}
	who := fmt.Sprintf("open to %d keys", s.Allow)
	if len(s.Tags) > 0 {
		who += " and " + strings.Join(s.Tags, ", ")
	}
	if s.AllowAny {
		who = "open to everybody in the mesh"
	}
	if s.Private {
		who += ", private addresses too"
	}
	if s.Rules > 0 {
		who += fmt.Sprintf(", %d rules", s.Rules)
	}
	if s.Rate > 0 {
		who += fmt.Sprintf(", %s a client", applet.Rate(s.Rate))
	}
	fmt.Fprintf(e.Stdout, "%s (pid %d): exit %s\n", r.Name, r.PID, who)
	fmt.Fprintf(e.Stdout, "  %d connections and %d UDP ports of %d clients now, load %d %%; %d made, %d refused, %d failed; %s sent, %s received\n",
		s.Connections, s.Associations, s.Clients, s.Load, s.Accepted, s.Refused, s.Failed, applet.Bytes(s.Sent), applet.Bytes(s.Received))
	fmt.Fprintf(e.Stdout, "  %d datagrams, %d dropped; %d names asked for, %d known already\n", s.Datagrams, s.Dropped, s.Names, s.NamesCached)
	if len(s.Keys) == 0 {
		return nil
	}
	t := e.NewTable("KEY", "OPEN", "UDP", "MADE", "REFUSED", "SENT", "RECEIVED")
	for _, k := range s.Keys {
		t.Row(k.Key, k.Connections, k.Associations, k.Accepted, k.Refused, applet.Bytes(k.Sent), applet.Bytes(k.Received))
	}
	return t.Flush()
}
