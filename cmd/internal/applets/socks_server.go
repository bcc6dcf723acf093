package applets

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/socks/proxy"
)

type socksServerConfig struct {
	Name         string   `yaml:"name"`
	Allow        []string `yaml:"allow"`
	AllowPrivate bool     `yaml:"allow_private"`
	Connections  int      `yaml:"connections"`
	PerKey       int      `yaml:"per_key"`
	Trackers     []string `yaml:"trackers"`
}

const socksServerAbout = `Makes this box an exit: nodes that are allowed open TCP connections that come out here.

    socks server --allow KEY [--allow KEY…]      these nodes (KEY: skywire node id, on the client's box; or a petname)
    socks server --allow any                     whoever can open a session with this node
    socks server                                 members, in a cluster; nobody, in an open mesh

Addresses local to this box stay closed (private, loopback, link-local, shared, its own), whatever name leads to them,
unless --allow-private is given: then your LAN and the services of this box are open to those allowed. Addresses of the
mesh itself stay closed in any case.

The 2017 form is understood: socks server NAME NODE_ADDR PORT. The node is the one of this box; PORT is not needed now.`

func socksServer(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks server", "[--allow KEY]… [flags]", socksServerAbout)
	var c socksConfig
	v := &c.Server
	f.ListVar(&v.Allow, "allow", "`KEY` or petname of a node that may use the exit, or any (repeatable)")
	f.BoolVar(&v.AllowPrivate, "allow-private", false, "lead to private and local addresses too")
	f.IntVar(&v.Connections, "connections", 2048, "most connections at once (`N`)")
	f.IntVar(&v.PerKey, "per-key", 1024, "most connections at once of one client (`N`)")
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
	node, err := awaitNode(ctx, f, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	keys, everybody, err := allowed(ctx, node, v.Allow)
	if err != nil {
		return err
	}
	if !everybody && len(keys) == 0 {
		f.Env().Talk("socks", "nobody may use this exit: the mesh is open and no key is allowed. Add --allow KEY (skywire node id, on the client's box), or --allow any")
	}
	x, err := proxy.NewExit(proxy.ExitConfig{
		Node: proxy.ForExit(node), Allow: keys, AllowAny: everybody, AllowPrivate: v.AllowPrivate,
		Mesh: node.Self().Prefix, Connections: v.Connections, PerKey: v.PerKey, Log: f.Logger(),
	})
	if err != nil {
		return err
	}
	service := app.Service{Name: proxy.Service, Type: proxy.Service}
	if everybody {
		service.Allow = []string{app.AnyMember}
	}
	for _, k := range keys {
		service.Allow = append(service.Allow, k.String())
	}
	r := app.Registration{Name: v.Name, Kind: socksServerKind, Services: []app.Service{service}}
	if err := node.Register(ctx, r); err != nil {
		return fmt.Errorf("register %q with the node: %w", v.Name, err)
	}
	if everybody || len(keys) > 0 {
		f.Logger().Info("exit open", "everybody", everybody, "keys", len(keys), "private", v.AllowPrivate)
	}
	return besideNode(ctx, node, func(ctx context.Context) error {
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
	if s.AllowAny {
		who = "open to everybody in the mesh"
	}
	if s.Private {
		who += ", private addresses too"
	}
	fmt.Fprintf(e.Stdout, "%s (pid %d): exit %s\n", r.Name, r.PID, who)
	fmt.Fprintf(e.Stdout, "  %d connections of %d clients now; %d made, %d refused, %d failed; %s sent, %s received\n",
		s.Connections, s.Clients, s.Accepted, s.Refused, s.Failed, applet.Bytes(s.Sent), applet.Bytes(s.Received))
	return nil
}
