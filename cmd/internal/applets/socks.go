package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/socks"
	"skywire/socks/proxy"
)

// Kinds under which the two apps of socks register with the node.
const (
	socksClientKind = "socks-client"
	socksServerKind = "socks-server"
)

func socksApplet() applet.Applet {
	return applet.Command{
		Name:    "socks",
		Summary: "a proxy whose connections come out at another node of the mesh",
		About: "On the box whose internet access is to be used (the exit):\n" +
			"    socks server --allow CLIENT_KEY          (the key: skywire node id, on the client's box)\n" +
			"On the box where the programs run:\n" +
			"    socks client                             (finds the nearest exit; or --server NODE)\n" +
			"    curl --proxy socks5h://127.0.0.1:1080 https://example.com/\n\n" +
			"Names are resolved at the exit. Bytes go from the program's socket through the node; no app copies them.",
		Verbs: []applet.Verb{
			{Name: "client", Args: "[--listen ADDR] [--server NODE|auto] [--user U --pass-file F]", Summary: "SOCKS5 and HTTP CONNECT on one port", Run: socksClient},
			{Name: "server", Args: "[--allow KEY]… [--allow-private]", Summary: "be an exit for the mesh", Run: socksServer},
			{Name: "status", Summary: "what the client and server of this box do", Run: socksStatus},
			{Name: "servers", Args: "[--ping]", Summary: "who offers an exit", Run: socksServers},
		},
	}.Applet()
}

// socksConfig is the section "socks" of config.yaml.
type socksConfig struct {
	Client socksClientConfig `yaml:"client"`
	Server socksServerConfig `yaml:"server"`
}

type socksClientConfig struct {
	Name        string `yaml:"name"`
	Listen      string `yaml:"listen"`
	Server      string `yaml:"server"`
	User        string `yaml:"user"`
	PassFile    string `yaml:"pass_file"`
	Open        bool   `yaml:"open"`
	Connections int    `yaml:"connections"`

	Trackers []string `yaml:"trackers"`
}

type socksServerConfig struct {
	Name         string   `yaml:"name"`
	Allow        []string `yaml:"allow"`
	AllowPrivate bool     `yaml:"allow_private"`
	Connections  int      `yaml:"connections"`
	PerKey       int      `yaml:"per_key"`
	Trackers     []string `yaml:"trackers"`
}

const socksClientAbout = `Runs the proxy that programs of this box use: SOCKS5 and HTTP CONNECT on one port.

    curl --proxy socks5h://127.0.0.1:1080 https://example.com/     names are resolved at the exit
    curl --proxy http://127.0.0.1:1080 https://example.com/
    git -c http.proxy=socks5h://127.0.0.1:1080 clone …
    ssh -o ProxyCommand='nc -X 5 -x 127.0.0.1:1080 %h %p' host

With --server auto it takes the exit with the shortest round trip among those that allow this node, stays with it, and
changes to the next when it fails. "skywire socks servers" lists them. An address beyond this box (0.0.0.0:1080) needs
--user and --pass-file, or --open if everybody who reaches it may use your exit.

The 2017 form is understood: socks client NAME NODE_ADDR PORT. The node is the one of this box, as ever with --run; PORT
is the local port.`

func socksClient(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks client", "[flags]", socksClientAbout)
	c := socksConfig{Client: socksClientConfig{Listen: "127.0.0.1:1080", Server: "auto"}}
	v := &c.Client
	f.StringVar(&v.Listen, "listen", v.Listen, "`HOST:PORT` to listen on")
	f.StringVar(&v.Server, "server", v.Server, "the exit: `NODE` as key, petname, name.mesh or mesh address; or auto")
	f.StringVar(&v.User, "user", "", "`NAME` that programs have to give")
	f.StringVar(&v.PassFile, "pass-file", "", "`FILE` with the password in its first line")
	f.BoolVar(&v.Open, "open", false, "listen beyond this box without a password")
	f.IntVar(&v.Connections, "connections", 2048, "most connections at once (`N`)")
	f.StringVar(&v.Name, "name", "", "`NAME` of this app beside its node")
	f.ListVar(&v.Trackers, "tracker", "with --server auto, ask this apptracker too: `NODE` or HOST:PORT (repeatable)")
	words, err := f.Parse(0, 3)
	if err == nil {
		err = f.Overlay(openSections, "socks", &c)
	}
	if err == nil && len(words) > 0 {
		var port int
		if v.Name, port, err = socksPositional(e, words); err == nil {
			v.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		}
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runSocksClient(ctx, f, *v) })
}

func runSocksClient(ctx context.Context, f *applet.Flags, v socksClientConfig) error {
	cred, err := socksCredentials(f.Env(), v.User, v.PassFile)
	if err != nil {
		return err
	}
	node, err := awaitNode(ctx, f, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	p, err := proxy.NewClient(proxy.ClientConfig{
		Node: proxy.ForClient(node), Listen: v.Listen, Server: v.Server, Credentials: cred, Open: v.Open,
		Connections: v.Connections, Finders: socksFinders(node, v.Trackers), Log: f.Logger(),
	})
	if errors.Is(err, proxy.ErrExposed) {
		return applet.Usagef("%w: add --user and --pass-file, or --open if that is meant, or listen on 127.0.0.1", err)
	}
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	if err := socksKnown(ctx, node, v.Server); err != nil {
		return err
	}
	if v.Name == "" {
		v.Name = socksClientKind
		if _, port, err := net.SplitHostPort(v.Listen); err == nil && port != "1080" {
			v.Name += "-" + port // several clients beside one node
		}
	}
	if err := node.Register(ctx, app.Registration{Name: v.Name, Kind: socksClientKind}); err != nil {
		return fmt.Errorf("register %q with the node: %w", v.Name, err)
	}
	return besideNode(ctx, node, p.Run)
}

// socksKnown finds a mistyped server before anybody waits for it. A name.mesh may become known later, when the records
// have come.
func socksKnown(ctx context.Context, node *app.Client, server string) error {
	if server == "" || server == "auto" || strings.HasSuffix(server, ".mesh") {
		return nil
	}
	if _, err := node.Resolve(ctx, server); err != nil {
		return fmt.Errorf("server %q: %w; say its key (skywire node id, on that box), or auto; skywire socks servers lists them", server, err)
	}
	return nil
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

// socksPositional opens NAME NODE_ADDR PORT of 2017.
func socksPositional(e *applet.Env, words []string) (name string, port int, err error) {
	if len(words) != 3 {
		return "", 0, applet.Usagef("want flags alone, or the 2017 form NAME NODE_ADDR PORT")
	}
	port, err = strconv.Atoi(words[2])
	if err != nil || port < 1 || port > 65535 {
		return "", 0, applet.Usagef("PORT %q is no port number", words[2])
	}
	if err := nodeAddr2017(e, "socks", words[1]); err != nil {
		return "", 0, err
	}
	return words[0], port, nil
}

// socksCredentials reads the password.
func socksCredentials(e *applet.Env, user, file string) (socks.Credentials, error) {
	switch {
	case user == "" && file == "":
		return socks.Credentials{}, nil
	case user == "" || file == "":
		return socks.Credentials{}, applet.Usagef("--user and --pass-file go together")
	}
	i, err := os.Stat(file)
	if err != nil {
		return socks.Credentials{}, fmt.Errorf("password: %w", err)
	}
	if i.Mode().Perm()&0o077 != 0 && i.Mode()&fs.ModeNamedPipe == 0 {
		e.Talk("socks", "other users can read %s: chmod 600 %s", file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return socks.Credentials{}, fmt.Errorf("password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" || len(line) > 255 || len(user) > 255 {
		return socks.Credentials{}, fmt.Errorf("password: %s: the first line has to hold 1 to 255 bytes", file)
	}
	return socks.Credentials{User: user, Password: line}, nil
}

// socksReport is one element of socks status --json.
type socksReport struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`
	PID    int             `json:"pid"`
	Status json.RawMessage `json:"status"`
}

func socksStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks status", "[--json]", "Prints what the socks clients and servers beside this box's node do.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		var all []socksReport
		if err := node.Call(ctx, "app.list", nil, &all); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(r socksReport) bool { return r.Kind != socksClientKind && r.Kind != socksServerKind })
		if f.JSON {
			if err := e.PrintJSON(slices.Concat([]socksReport{}, all)); err != nil {
				return err
			}
		} else if err := socksPrintStatus(e, all); err != nil {
			return err
		}
		if len(all) == 0 {
			return applet.WithCode(applet.NotRunning, errors.New("no socks client or server runs beside this node; start one with: skywire socks client"))
		}
		return nil
	})
}

func socksPrintStatus(e *applet.Env, all []socksReport) error {
	for _, r := range all {
		var err error
		if r.Kind == socksClientKind {
			err = socksPrintClient(e, r)
		} else {
			err = socksPrintServer(e, r)
		}
		if err != nil {
			return fmt.Errorf("status of %s: %w", r.Name, err)
		}
	}
	return nil
}

func socksPrintClient(e *applet.Env, r socksReport) error {
	var s proxy.ClientStatus
	if len(r.Status) > 0 {
		if err := json.Unmarshal(r.Status, &s); err != nil {
			return err
		}
	}
	exit := s.Exit
	if exit == "" {
		exit = "none yet"
	}
	fmt.Fprintf(e.Stdout, "%s (pid %d): listening on %s, server %s, exit %s\n", r.Name, r.PID, s.Listen, s.Server, exit)
	fmt.Fprintf(e.Stdout, "  %d connections now; %d accepted, %d granted, %d denied, %d not understood; %s sent, %s received\n",
		s.Connections, s.Accepted, s.Granted, s.Denied, s.Bad, applet.Bytes(s.Sent), applet.Bytes(s.Received))
	for _, x := range s.Exits {
		rtt := "not measured"
		if x.RTT != nil {
			rtt = fmt.Sprintf("%.1f ms", *x.RTT)
		}
		if x.Fault != "" {
			rtt += ", " + x.Fault
		}
		fmt.Fprintf(e.Stdout, "  exit %s: %s\n", x.Key, rtt)
	}
	return nil
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

// socksExit is one element of socks servers --json.
type socksExit struct {
	Key    key.Public `json:"key"`
	Name   string     `json:"name"`
	Online bool       `json:"online"`
	RTT    *float64   `json:"rtt_ms"` // null: not known
	Meta   string     `json:"meta"`
}

func socksServers(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks servers", "[--ping] [--json]", "Lists the exits of the mesh, the nearest first. Whether one allows this node shows when it is used.")
	ping := f.Bool("ping", false, "measure the round trips now")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		all, err := socksExits(ctx, node, *ping)
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("KEY", "NAME", "ONLINE", "RTT")
		for _, x := range all {
			rtt := ""
			if x.RTT != nil {
				rtt = fmt.Sprintf("%.1f ms", *x.RTT)
			}
			t.Row(x.Key, x.Name, x.Online, rtt)
		}
		return t.Flush()
	})
}

// socksExits lists the exits by round trip, those without one last.
func socksExits(ctx context.Context, node *app.Client, ping bool) ([]socksExit, error) {
	services, err := node.Services(ctx, proxy.Service)
	if err != nil {
		return nil, err
	}
	all := []socksExit{}
	for _, s := range services {
		x := socksExit{Key: s.Key, Name: s.Node, Online: s.Online, Meta: s.Meta}
		if s.RTT > 0 {
			x.RTT = &s.RTT
		}
		if ping {
			x.RTT = nil
			rtt, err := node.Ping(ctx, s.Key)
			if err == nil {
				v := float64(rtt.Microseconds()) / 1000
				x.RTT = &v
			} else if errors.Is(err, app.ErrNotRunning) || !errors.As(err, new(*signal.Error)) {
				return nil, err
			}
		}
		all = append(all, x)
	}
	sort.SliceStable(all, func(i, j int) bool { // those that did not answer come last
		a, b := all[i].RTT, all[j].RTT
		return a != nil && (b == nil || *a < *b)
	})
	return all, nil
}
