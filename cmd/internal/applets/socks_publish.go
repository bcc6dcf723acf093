//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/socks/publish"
)

const socksPublishAbout = `Offers programs that listen behind this node to chosen nodes, and opens nothing else of this box.

    socks publish web=tcp://127.0.0.1:80 --allow KEY      KEY: skywire node id, on that box; or a petname
    socks publish web:80=tcp://127.0.0.1:8080             known under port 80, listening on 8080
    socks publish dns=udp://127.0.0.1:53 dns=tcp://127.0.0.1:53 --allow @home
    socks publish web=tcp://10.0.0.7:80 ssh=tcp://127.0.0.1:22 --allow @home --allow ssh=KEY
    socks publish db:5432=unix:/run/postgresql/.s.PGSQL.5432 --allow KEY

--allow holds for all services, --allow NAME=WORD for one, which then has only its own: KEY, petname, @TAG (members whose
certificate has the tag) or any. Without, members may in a cluster, and nobody in an open mesh.

Others reach web of the node alice
    by skywire socks client:     http://web.alice.mesh/ or http://alice.mesh/
    by skywire socks forward:    --local 8080=alice:web
    by the vpn:                  at the mesh address of this node, while this box has a TUN with it

By the vpn, who is not allowed has the connection reset, and packets dropped. A program that itself listens on all
addresses of the box is reachable there without this command, by all members: have it listen on 127.0.0.1.

skywire socks grant NAME WORD and socks revoke NAME WORD change who may while this runs; revoking ends connections.`

func socksPublish(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks publish", "NAME[:PORT]=URL… [--allow [NAME=]WORD]… [flags]", socksPublishAbout)
	var c socksConfig
	v := &c.Publish
	f.ListVar(&v.Allow, "allow", "`[NAME=]WORD`: who may; KEY, petname, @TAG or any (repeatable)")
	f.BoolVar(&v.ProxyHeader, "proxy-header", false, "begin each TCP connection with a PROXY protocol (v2) header that has the peer's address and key")
	f.BoolVar(&v.NoVPN, "no-vpn", false, "not at the mesh address of this box")
	f.StringVar(&v.Name, "name", "", "`NAME` of this app beside its node")
	words, err := f.Parse(0, 64)
	if err == nil {
		err = f.Overlay(openSections, "socks", &c)
	}
	if len(words) > 0 {
		v.Services = words
	}
	if err == nil && len(v.Services) == 0 {
		err = applet.Usagef("nothing to publish: say NAME=tcp://HOST:PORT")
	}
	var specs []publish.Spec
	for _, text := range v.Services {
		s, perr := publish.ParseSpec(text)
		if perr != nil {
			err = applet.WithCode(applet.BadUsage, perr)
		}
		specs = append(specs, s)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runSocksPublish(ctx, f, *v, specs) })
}

// publishAllow sorts the words of --allow by service.
func publishAllow(ctx context.Context, node *app.Client, specs []publish.Spec, words []string) (map[string][]string, error) {
	var common []string
	own := map[string][]string{}
	for _, w := range words {
		name, word, one := strings.Cut(w, "=")
		if one {
			own[name] = append(own[name], word)
		} else {
			common = append(common, w)
		}
	}
	all := map[string][]string{}
	for _, s := range specs {
		words, ok := own[s.Name]
		if !ok {
			words = common
		}
		allow, err := allowWords(ctx, node, words)
		if err != nil {
			return nil, err
		}
		all[s.Name] = allow
	}
	for name := range own {
		if _, ok := all[name]; !ok {
			return nil, applet.Usagef("--allow %s=…: no service %q is published here", name, name)
		}
	}
	return all, nil
}

func runSocksPublish(ctx context.Context, f *applet.Flags, v socksPublishConfig, specs []publish.Spec) error {
	node, err := awaitNode(ctx, f, startWait(f.Env()))
	if err != nil {
		return err
	}
	defer node.Close()
	allow, err := publishAllow(ctx, node, specs, v.Allow)
	if err != nil {
		return err
	}
	for name, words := range allow {
		if len(words) == 0 {
			f.Env().Talk("socks", "nobody may use %s: the mesh is open and no key is allowed. Add --allow KEY (skywire node id, on the client's box), or --allow any", name)
		}
	}
	if v.Name == "" {
		v.Name = socksPublishKind + "-" + specs[0].Name
	}
	p, err := publish.NewPublisher(publish.PublisherConfig{
		Node: node, Name: v.Name, Kind: socksPublishKind, Specs: specs, Allow: allow,
		ProxyHeader: v.ProxyHeader, NoVPN: v.NoVPN, Log: f.Logger(),
	})
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	node.OnCall(func(ctx context.Context, method string, params json.RawMessage) (any, error) {
		return publishCall(ctx, p, method, params)
	})
	return besideNode(ctx, f, node, p.Run)
}

// publishChange is publish.grant and publish.revoke, asked through the node.
type publishChange struct {
	Service string `json:"service"`
	Word    string `json:"word"` // as in app.Service.Allow
}

func publishCall(ctx context.Context, p *publish.Publisher, method string, params json.RawMessage) (any, error) {
	var c publishChange
	if err := json.Unmarshal(params, &c); err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "%s: %v", method, err)
	}
	var err error
	switch method {
	case "publish.grant":
		err = p.Grant(ctx, c.Service, c.Word)
	case "publish.revoke":
		err = p.Revoke(ctx, c.Service, c.Word)
	default:
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", method)
	}
	if errors.Is(err, publish.ErrNotPublished) {
		return nil, signal.Errorf(signal.ErrNotFound, "%v", err)
	}
	return struct{}{}, err
}

func socksGrant(ctx context.Context, e *applet.Env) int {
	return socksRegrant(ctx, e, "grant", "Lets one more use a service that this box publishes, until its socks publish ends; --allow or config.yaml make it last.")
}

func socksRevoke(ctx context.Context, e *applet.Env) int {
	return socksRegrant(ctx, e, "revoke", "Takes the use of a published service back: connections and flows of who has no other grant end at once. It holds until\nsocks publish starts again; take the --allow out of its command line or config.yaml too.")
}

func socksRegrant(ctx context.Context, e *applet.Env, verb, about string) int {
	f := applet.NewFlags(e, "socks "+verb, "SERVICE KEY|PETNAME|@TAG|any", about)
	words, err := f.Parse(2, 2)
	if err != nil {
		return f.Exit(err)
	}
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		allow, err := allowWords(ctx, node, words[1:])
		if err != nil {
			return err
		}
		reports, err := publishReports(ctx, node)
		if err != nil {
			return err
		}
		for _, r := range reports {
			for _, s := range r.Services {
				if s.Name == words[0] {
					return callApp(ctx, node, r.App, "publish."+verb, publishChange{Service: s.Name, Word: allow[0]}, nil)
				}
			}
		}
		return applet.WithCode(applet.NotRunning, fmt.Errorf("this box publishes no %q; skywire socks published lists what it does", words[0]))
	})
}

// publishReport is one element of socks published --json.
type publishReport struct {
	App      string                  `json:"app"`
	PID      int                     `json:"pid"`
	Services []publish.ServiceStatus `json:"services"`
}

// publishReports asks the node for the publishers of this box.
func publishReports(ctx context.Context, node *app.Client) ([]publishReport, error) {
	var apps []socksReport
	if err := node.Call(ctx, "app.list", nil, &apps); err != nil {
		return nil, err
	}
	all := []publishReport{}
	for _, a := range apps {
		if a.Kind != socksPublishKind {
			continue
		}
		r := publishReport{App: a.Name, PID: a.PID, Services: []publish.ServiceStatus{}}
		if len(a.Status) > 0 {
			if err := json.Unmarshal(a.Status, &r.Services); err != nil {
				return nil, fmt.Errorf("status of %s: %w", a.Name, err)
			}
		}
		all = append(all, r)
	}
	return all, nil
}

func socksPublished(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks published", "[--json]", "Lists what this box publishes, to whom, and what comes of it.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		all, err := publishReports(ctx, node)
		if err != nil {
			return err
		}
		if f.JSON {
			if err := e.PrintJSON(all); err != nil {
				return err
			}
		} else if err := printPublished(e, all); err != nil {
			return err
		}
		if len(all) == 0 {
			return applet.WithCode(applet.NotRunning, errors.New("nothing is published by this box; start it with: skywire socks publish NAME=tcp://HOST:PORT"))
		}
		return nil
	})
}

// socksPrintPublisher prints a publisher for socks status.
func socksPrintPublisher(e *applet.Env, r socksReport) error {
	p := publishReport{App: r.Name, PID: r.PID}
	if len(r.Status) > 0 {
		if err := json.Unmarshal(r.Status, &p.Services); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.Stdout, "%s (pid %d): publishes\n", r.Name, r.PID)
	return printPublished(e, []publishReport{p})
}

func printPublished(e *applet.Env, all []publishReport) error {
	t := e.NewTable("SERVICE", "PORT", "TYPE", "TO", "ALLOW", "VPN", "NOW", "MADE", "REFUSED", "FAILED", "SENT", "RECEIVED")
	for _, r := range all {
		for _, s := range r.Services {
			allow := "nobody"
			if len(s.Allow) > 0 {
				allow = strings.Join(s.Allow, " ")
			}
			t.Row(s.Name, s.Port, s.Type, strings.Join(s.To, " "), allow, s.VPN, s.Connections, s.Made, s.Refused, s.Failed, applet.Bytes(s.Sent), applet.Bytes(s.Received))
		}
	}
	return t.Flush()
}

func socksServices(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks services", "[NODE] [--json]", "Lists the services that the nodes of the mesh publish, or those of one node. Whether one admits this node shows when it is used.")
	words, err := f.Parse(0, 1)
	if err != nil {
		return f.Exit(err)
	}
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		var of key.Public
		if len(words) == 1 {
			if of, err = node.Resolve(ctx, words[0]); err != nil {
				return err
			}
		}
		found, err := node.Services(ctx, "")
		if err != nil {
			return err
		}
		all := []app.Service{}
		for _, s := range found {
			if app.Published(s.Type) && (len(words) == 0 || s.Key == of) {
				all = append(all, s)
			}
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("SERVICE", "PORT", "TYPE", "NODE", "KEY", "ONLINE")
		for _, s := range all {
			t.Row(s.Name, s.Port, s.Type, s.Node, s.Key, s.Online)
		}
		return t.Flush()
	})
}
