package applets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
	"skywire/signal"
	"skywire/tun"
)

// nodeName is the applet and its section of config.yaml.
const nodeName = "node"

func nodeApplet() applet.Applet {
	return applet.Command{
		Name:    nodeName,
		Summary: "the mesh daemon: links, paths, sessions, forwarding",
		About: "A first mesh of two boxes:\n" +
			"  on the one with a reachable address:  node run --open --name home\n" +
			"  on the other one:                     node run --open --name away --peer HOST:7667\n" +
			"  then on either:                       node ping home, vpn up, socks client …",
		Verbs: []applet.Verb{
			{Name: "run", Args: "[flags]", Summary: "the daemon", Run: nodeRun},
			{Name: "id", Summary: "this node's public key; made if there is none", Run: nodeID},
			{Name: "status", Summary: "how the node is", Run: nodeStatus},
			{Name: "peers", Summary: "the neighbours", Run: nodePeers},
			{Name: "paths", Summary: "paths of our own sessions", Run: nodePaths},
			{Name: "routes", Summary: "label rules: what runs through and ends here", Run: nodeRoutes},
			{Name: "services", Args: "[--type T]", Summary: "what the nodes of the mesh offer", Run: nodeServices},
			{Name: "ping", Args: "NODE [-c N] [-i S]", Summary: "round trips end to end over the mesh", Run: nodePing},
			{Name: "trace", Args: "NODE", Summary: "the path hop by hop", Run: nodeTrace},
			{Name: "why", Args: "NODE", Summary: "why this path and not another", Run: nodeWhy},
			{Name: "whois", Args: "NODE|ADDRESS", Summary: "whose key, name or address it is", Run: nodeWhois},
			{Name: "events", Args: "[-f] [-n N]", Summary: "what changed, and why", Run: nodeEvents},
			{Name: "bench", Args: "NODE [-t S]", Summary: "throughput of a stream to a node, both ways", Run: nodeBench},
			{Name: "petname", Args: "add NAME NODE|remove NAME|list", Summary: "names of your own for keys", Run: nodePetname},
			{Name: "join", Args: "INVITE|-", Summary: "become a member of a cluster, by an invite of its manager", Run: nodeJoin},
			{Name: "membership", Summary: "where this node belongs, and how it stands there", Run: nodeMembership},
			{Name: "leave", Summary: "be no member any more", Run: nodeLeave},
		},
		Default:      nodeRun2017,
		DefaultTakes: func(args []string) bool { return len(args) >= 1 && strings.Contains(args[0], ":") },
	}.Applet()
}

// nodeConfig is the section "node" of config.yaml.
type nodeConfig struct {
	Name       string        `yaml:"name"`
	Listen     []string      `yaml:"listen"`
	Peers      []string      `yaml:"peers"`
	Managers   []string      `yaml:"managers"`
	Open       bool          `yaml:"open"`
	Allow      []string      `yaml:"allow"`
	Rekey      time.Duration `yaml:"rekey"`
	StoreAfter time.Duration `yaml:"store_after"`
	Plain      bool          `yaml:"plain"`
	Streams    string        `yaml:"streams"`
	Loops      int           `yaml:"loops"`
	Memory     string        `yaml:"memory"`
	Paths      pathsConfig   `yaml:"paths"`
	Reach      nodeReach     `yaml:",inline"`
	Punch      nodePunch     `yaml:",inline"`
	Carriers   nodeCarriers  `yaml:",inline"`
	Ways       nodeWays      `yaml:",inline"`
	Names      nodePetnames  `yaml:",inline"`
}

const nodeRunAbout = `Runs the node of this box. Its identity (node.key) is made on first run and lies in --state with its routes (node.db).

ADDR is udp://host:port, host:port, tcp://host:port or wss://host[:port]/path. A peer is KEY@ADDR, or ADDR alone where that node runs --open: its key is learnt and
pinned. Who may link is said by --open (anyone) or --allow KEY (repeatable); peers and managers given with a key are
allowed. The node needs no rights beyond its ports.

` + nodeCarriersAbout + `

` + nodeWaysAbout + `

Each event loop receives on a port of its own: --listen :7667 on a box with four loops takes 7667 to 7670. Neighbours use
those that answer them; open the first one in a firewall, and the others to use all cores.`

func nodeRun(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node run", "[--listen ADDR]… [--peer KEY@ADDR]… [--open|--allow KEY]…", nodeRunAbout)
	var c nodeConfig
	f.StringVar(&c.Name, "name", "", "`NAME` of the node, shown to others (default: the host's)")
	f.ListVar(&c.Listen, "listen", fmt.Sprintf("`ADDR` to listen on, repeatable (default udp://[::]:%d)", node.DefaultPort))
	f.ListVar(&c.Peers, "peer", "`KEY@ADDR` to keep a link with, repeatable")
	f.ListVar(&c.Managers, "manager", "`KEY@ADDR` of a manager, repeatable, the preferred first")
	f.BoolVar(&c.Open, "open", false, "anyone may link and pass traffic through")
	f.ListVar(&c.Allow, "allow", "`KEY` that may link, repeatable")
	f.DurationVar(&c.Rekey, "rekey", 0, "how long a key is used (default 2m0s)")
	f.DurationVar(&c.StoreAfter, "store-after", 0, "age at which relay rules are written to flash (default 1m0s)")
	f.BoolVar(&c.Plain, "plain", false, "one datagram a system call: no UDP_GRO and UDP_SEGMENT")
	f.StringVar(&c.Streams, "streams", "", "`CARRIER` of streams: quic, or tcp wherever both ends run the vpn (default: as measured)")
	f.IntVar(&c.Loops, "loops", 0, fmt.Sprintf("`N` event loops, 1 to %d (default: 1 on one or two cores, else one a core up to 4)", forward.MaxLoops))
	f.StringVar(&c.Memory, "memory", "", "`SIZE` the box is taken to have, as 64MB (default: what it has); below 192MB buffers are small")
	c.Reach.flags(f)
	c.Punch.flags(f)
	c.Carriers.flags(f)
	c.Paths.flags(f)
	c.Ways.flags(f)
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, nodeName, &c)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runNode(ctx, f, c) })
}

// nodeRun2017 takes the words of 2017: OWN_ADDR [MANAGER_OR_PEER_ADDR [RANDOM [APP_PORT [NAME]]]]. The host of OWN_ADDR
// was what others reach the box by, which may be its router's: only its port is listened on. Apps find the node by its
// run directory, so APP_PORT has no meaning any more.
func nodeRun2017(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node", "OWN_ADDR [PEER_ADDR [true|false [APP_PORT [NAME]]]]", "The form of 2017; see node run --help.")
	words, err := f.Parse(1, 5)
	if err != nil {
		return f.Exit(err)
	}
	c := nodeConfig{Open: true}
	_, port, err := net.SplitHostPort(words[0])
	if err != nil {
		return f.Exit(applet.Usagef("own address %q: %v", words[0], err))
	}
	c.Listen = []string{":" + port}
	if len(words) > 1 {
		c.Peers = []string{words[1]}
	}
	if len(words) > 4 {
		c.Name = words[4]
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runNode(ctx, f, c) })
}

// runNode turns words into the node's Config and runs it.
func runNode(ctx context.Context, f *applet.Flags, c nodeConfig) error {
	log := f.Logger()
	conf := node.Config{
		State: f.State, Run: f.Run, Name: c.Name, Version: programVersion(), Open: c.Open, Rekey: c.Rekey,
		StoreAfter: c.StoreAfter, Plain: c.Plain, Streams: c.Streams, Loops: c.Loops, Processors: f.Env().Processors, Log: log,
		NoPunch:     c.Punch.NoPunch,
		OpenTUN:     func(f *os.File, mtu int) (forward.TUN, error) { return tun.FromFile(f, mtu) },
		TUNFeatures: func(of string, queue forward.TUN) []api.Feature { return tunFeatures(of, queue) },
	}
	var err error
	if conf.Find, err = c.Reach.finding(); err != nil {
		return err
	}
	if conf.Petnames, err = c.Names.keys(); err != nil {
		return err
	}
	if conf.Ways, err = c.Ways.config(); err != nil {
		return err
	}
	if conf.Memory, err = parseMemory(c.Memory); err != nil {
		return err
	}
	if conf.Paths, err = c.Paths.constraints(); err != nil {
		return err
	}
	if c.Loops < 0 || c.Loops > forward.MaxLoops {
		return applet.Usagef("--loops %d: want 1 to %d, or 0 for as many as suit the box", c.Loops, forward.MaxLoops)
	}
	if conf.Name == "" {
		if h, err := os.Hostname(); err == nil {
			conf.Name, _, _ = strings.Cut(h, ".")
		}
	}
	var streams []string
	for _, a := range c.Listen {
		hp, err := parseAddr(a)
		if err == nil && isStream(a) {
			streams = append(streams, a)
			continue
		}
		if err == nil {
			err = checkPort(hp, 0)
		}
		if err != nil {
			return applet.Usagef("--listen %q: %v", a, err)
		}
		conf.Listen = append(conf.Listen, hp)
	}
	conf.Carriers = c.Carriers.carriers(f.Env(), streams)
	if c.Streams != "" && c.Streams != "quic" && c.Streams != "tcp" {
		return applet.Usagef("--streams %q: quic or tcp", c.Streams)
	}
	if conf.Peers, err = parsePeers("--peer", c.Peers); err != nil {
		return err
	}
	if conf.Managers, err = parsePeers("--manager", c.Managers); err != nil {
		return err
	}
	for _, a := range c.Allow {
		k, err := key.Parse(a)
		if err != nil {
			return applet.Usagef("--allow %q: %v", a, err)
		}
		conf.Allow = append(conf.Allow, k)
	}
	if !conf.Open && len(conf.Allow)+len(conf.Peers)+len(conf.Managers) == 0 {
		log.Warn("nobody may link with this node: run it with --open, --allow KEY or --peer KEY@ADDR")
	}
	if !printable(conf.Name) || len(conf.Name) > route.MaxName {
		return applet.Usagef("--name %q: want at most %d bytes that can be printed", conf.Name, route.MaxName)
	}
	return serveNode(ctx, f, conf)
}

// parseMemory takes 64MB, 1GB or a number of bytes; nothing is 0.
func parseMemory(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	number, unit := strings.ToUpper(s), uint64(1)
	for i, suffix := range []string{"KB", "MB", "GB"} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if n *= unit; err != nil || n < 16<<20 {
		return 0, applet.Usagef("--memory %q: want a size from 16MB up, as 64MB or 1GB", s)
	}
	return n, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// withRemedy says what to do about addresses and folders that can't be had.
func withRemedy(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; another program has this port: stop it (ss -lnup tells which), or choose another with --listen", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; no address of this box: leave the host out (--listen :PORT), or take one that ip address shows", err)
	case errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "bind"):
		return fmt.Errorf("%w; choose a port from 1024 up with --listen", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run it as root, or give it folders of your own with --state and --run", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; give it folders that can be written with --state and --run", err)
	}
	return err
}

// parseAddr takes ADDR and returns host:port, or a stream carrier's as it is.
func parseAddr(a string) (string, error) {
	scheme, rest, ok := strings.Cut(a, "://")
	if !ok {
		rest, scheme = a, "udp"
	}
	if scheme != "udp" {
		return a, node.CheckAddr(a, false)
	}
	if _, _, err := net.SplitHostPort(rest); err != nil {
		if !strings.Contains(err.Error(), "missing port") {
			return "", err
		}
		rest = net.JoinHostPort(strings.Trim(rest, "[]"), strconv.Itoa(node.DefaultPort))
	}
	return rest, nil
}

// checkPort refuses what is no port, or lies below least.
func checkPort(hostport string, least int) error {
	_, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < least || n > 65535 {
		return fmt.Errorf("port %q is none from %d to 65535", port, least)
	}
	return nil
}

// checkPeerAddr refuses an address that nothing can be sent to.
func checkPeerAddr(hostport string) error {
	if isStream(hostport) {
		return node.CheckAddr(hostport, true)
	}
	if host, _, err := net.SplitHostPort(hostport); err == nil && host == "" {
		return errors.New("want KEY@HOST:PORT, or HOST:PORT")
	}
	return checkPort(hostport, 1)
}

// parsePeers takes KEY@ADDR, ADDR or KEY.
func parsePeers(flag string, all []string) ([]node.Peer, error) {
	var peers []node.Peer
	for _, s := range all {
		var p node.Peer
		k, a, ok := strings.Cut(s, "@")
		if !ok {
			if parsed, err := key.Parse(s); err == nil {
				peers = append(peers, node.Peer{Key: parsed})
				continue
			}
			k, a = "", s
		}
		var err error
		if k != "" {
			if p.Key, err = key.Parse(k); err != nil {
				return nil, applet.Usagef("%s %q: %v", flag, s, err)
			}
		}
		p.Addr, err = parseAddr(a)
		if err == nil {
			err = checkPeerAddr(p.Addr)
		}
		if err != nil {
			return nil, applet.Usagef("%s %q: %v", flag, s, err)
		}
		peers = append(peers, p)
	}
	return peers, nil
}

func nodeID(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node id", "[--json]", "Prints the public key of this box's node: of the one that runs, or the one in --state, made if there is none.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	info := struct {
		Key     key.Public `json:"key"`
		Address string     `json:"address"`
		Name    string     `json:"name"`
	}{}
	if c, err := app.Dial(ctx, f.Run); err == nil && !f.Given("state") {
		s := c.Self()
		info.Key, info.Address, info.Name = s.Key, s.Address.String(), s.Name
		_ = c.Close()
	} else {
		k, _, err := key.LoadOrCreate(filepath.Join(f.State, "node.key"))
		if err != nil {
			return f.Exit(withRemedy(err))
		}
		info.Key, info.Address = k.Public(), networkOf(f.State).Address(k.Public()).String()
	}
	if f.JSON {
		return f.Exit(e.PrintJSON(info))
	}
	fmt.Fprintln(e.Stdout, info.Key)
	return applet.OK
}

// askTimeout bounds a question of a person to the node.
const askTimeout = 30 * time.Second

// ask runs one verb that asks the node of this box.
func ask(ctx context.Context, f *applet.Flags, question func(ctx context.Context, c *app.Client) error) int {
	return f.Duty(ctx, func(ctx context.Context) error {
		c, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer c.Close()
		return question(ctx, c)
	})
}

// show asks one method and prints its result.
func show[T any](ctx context.Context, f *applet.Flags, method string, params any, print func(T) error) int {
	var v T
	return showInto(ctx, f, method, params, &v, func() error { return print(v) })
}

// showInto is show without its type, so that it is compiled once.
func showInto(ctx context.Context, f *applet.Flags, method string, params, v any, print func() error) int {
	return ask(ctx, f, func(ctx context.Context, c *app.Client) error {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if err := c.Call(ctx, method, params, v); err != nil {
			return err
		}
		if f.JSON {
			return f.Env().PrintJSON(v)
		}
		return print()
	})
}

func nodeStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node status", "[--json]", "Shows how the node of this box is.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.status", nil, func(s api.Status) error {
		fmt.Fprintf(e.Stdout, "name      %s\nkey       %s\naddress   %s\nlisten    %s\n", s.Name, s.Key, s.Address, strings.Join(s.Listen, " "))
		writeMembership(e.Stdout, s.Membership)
		if s.Manager.Key != "" {
			fmt.Fprintf(e.Stdout, "manager   %s (%s)\n", s.Manager.Key, s.Manager.State)
		}
		fmt.Fprintf(e.Stdout, "links     %d\nsessions  %d\nroutes    %d\nreceived  %s\nsent      %s\nrelayed   %s in %d packets\n",
			s.Links, s.Sessions, s.Routes, applet.Bytes(s.RxBytes), applet.Bytes(s.TxBytes), applet.Bytes(s.RelayedBytes), s.RelayedPackets)
		fmt.Fprintf(e.Stdout, "streams   %d, %d of them on TCP\n", s.Streams.Open, s.Streams.OnTCP)
		if s.Twin != "" {
			fmt.Fprintf(e.Stdout, "ALARM     %s: remove node.key on one of the two, and restart it\n", s.Twin)
		}
		printNAT(e.Stdout, s.NAT)
		printMachine(e.Stdout, s.Machine)
		printFeatures(e.Stdout, s.Features)
		if !s.Ready {
			fmt.Fprintln(e.Stdout, "not ready: no link is up; node peers shows who is dialled")
		}
		var names []string
		for n := range s.Drops {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			fmt.Fprintf(e.Stdout, "drops     %s %d\n", n, s.Drops[n])
		}
		return nil
	})
}

func nodePeers(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node peers", "[--json]", "Lists the neighbours and how their links are.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.peers", nil, func(all []api.Peer) error {
		t := e.NewTable("NAME", "KEY", "STATE", "ADDR", "RTT", "JITTER", "LOSS", "CAPACITY", "MTU", "UP", "RECEIVED", "SENT", "REASON")
		for _, p := range all {
			who := p.Key.String()
			if p.Key.IsZero() {
				who = "" // asked for, not told yet
			}
			t.Row(p.Name, who, p.State, p.Endpoint, millis(p.RTT), millis(p.Jitter), percent(p.Loss), kbit(p.Capacity), p.MTU, seconds(p.UpS), applet.Bytes(p.RxBytes), applet.Bytes(p.TxBytes), p.Reason)
		}
		return t.Flush()
	})
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", v*100) }

func nodePaths(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node paths", "[--json]", "Lists the paths of this node's sessions.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.paths", nil, func(all []api.Path) error {
		t := e.NewTable("PEER", "NUMBER", "ROLE", "STATE", "PATH", "RTT", "LOSS", "MTU", "AGE", "RECEIVED", "SENT")
		for _, p := range all {
			t.Row(p.Peer.Short(), p.Number, p.Role, p.State, arrows(p.Names), millis(p.RTT), percent(p.Loss), p.MTU, seconds(p.AgeS), p.RxFrames, p.TxFrames)
		}
		return t.Flush()
	})
}

func nodeRoutes(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node routes", "[--json]", "Lists the label rules of this node: paths of others that run through it, and paths that end here.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.routes", nil, func(all []api.Route) error {
		t := e.NewTable("LABEL", "KIND", "FROM", "TO", "OUT", "LANES", "PACKETS", "BYTES", "IDLE")
		for _, r := range all {
			bytes := ""
			if r.Bytes != nil {
				bytes = applet.Bytes(*r.Bytes)
			}
			t.Row(r.Label, r.Kind, short(r.In), short(r.Out), r.OutBase, r.Lanes, r.Packets, bytes, fmt.Sprintf("%d s", r.IdleS))
		}
		return t.Flush()
	})
}

func short(k string) string { return k[:min(8, len(k))] }

func nodeServices(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node services", "[--type T] [--json]", "Lists what the nodes of the mesh offer, nearest first.")
	typ := f.String("type", "", "only services of `TYPE` (vpn, socks, manager, …)")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.services", api.ServicesParams{Type: *typ}, func(all []app.Service) error {
		t := e.NewTable("TYPE", "NAME", "NODE", "KEY", "ONLINE", "RTT", "META")
		for _, s := range all {
			t.Row(s.Type, s.Name, s.Node, s.Key, s.Online, fmt.Sprintf("%.2f ms", s.RTT), s.Meta)
		}
		return t.Flush()
	})
}

// pingReport is ping --json.
type pingReport struct {
	Key      key.Public `json:"key"`
	Sent     int        `json:"sent"`
	Received int        `json:"received"`
	Loss     float64    `json:"loss"`
	Min      float64    `json:"min_ms"`
	Avg      float64    `json:"avg_ms"`
	P99      float64    `json:"p99_ms"`
	Max      float64    `json:"max_ms"`
}

func nodePing(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node ping", "NODE [-c N] [-i S] [--json]", "Pings a node end to end over the mesh, relays included.")
	count := f.Int("c", 4, "how many `N` pings; 0: until interrupted")
	interval := f.Float64("i", 1, "`SECONDS` between two pings")
	words, err := f.Parse(1, 1)
	if err == nil && (*interval < 0 || *count < 0) {
		err = applet.Usagef("-c and -i can't be negative")
	}
	if err != nil {
		return f.Exit(err)
	}
	return ask(ctx, f, func(ctx context.Context, c *app.Client) error {
		to, err := c.Resolve(ctx, words[0])
		if err != nil {
			return err
		}
		r := pingReport{Key: to}
		var rtts []float64
		var last error
		ticks := time.NewTicker(max(time.Duration(*interval*float64(time.Second)), time.Millisecond))
		defer ticks.Stop()
		for i := 0; (*count == 0 || i < *count) && ctx.Err() == nil; i++ {
			if i > 0 {
				select {
				case <-ticks.C:
				case <-ctx.Done():
					continue
				}
			}
			pctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			d, err := c.Ping(pctx, to)
			cancel()
			if ctx.Err() != nil {
				break
			}
			r.Sent++
			if err != nil {
				last = err
				if !f.JSON {
					fmt.Fprintf(e.Stdout, "%d: %v\n", i+1, err)
				}
				continue
			}
			r.Received++
			v := float64(d.Microseconds()) / 1000
			rtts = append(rtts, v)
			if !f.JSON {
				fmt.Fprintf(e.Stdout, "%d: %.2f ms\n", i+1, v)
			}
		}
		return r.print(f, e, rtts, last)
	})
}

func (r *pingReport) print(f *applet.Flags, e *applet.Env, rtts []float64, last error) error {
	if r.Sent > 0 {
		r.Loss = float64(r.Sent-r.Received) / float64(r.Sent)
	}
	if len(rtts) > 0 {
		sort.Slice(rtts, func(i, j int) bool { return rtts[i] < rtts[j] })
		sum := 0.0
		for _, v := range rtts {
			sum += v
		}
		r.Min, r.Max, r.Avg, r.P99 = rtts[0], rtts[len(rtts)-1], sum/float64(len(rtts)), rtts[len(rtts)*99/100]
	}
	if f.JSON {
		if err := e.PrintJSON(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.Stdout, "%d sent, %d received, loss %s; min/avg/p99 %.2f/%.2f/%.2f ms\n", r.Sent, r.Received, percent(r.Loss), r.Min, r.Avg, r.P99)
	}
	if r.Received == 0 && r.Sent > 0 {
		return applet.WithCode(applet.NotRunning, fmt.Errorf("no answer from the node: %w; see: skywire node why %s", last, r.Key))
	}
	return nil
}

func nodeBench(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node bench", "NODE [-t S] [--json]", "Measures the throughput of one stream to a node, there and back.")
	seconds := f.Float64("t", 3, "`SECONDS` each way")
	words, err := f.Parse(1, 1)
	if err == nil && (*seconds <= 0 || *seconds > 60) {
		err = applet.Usagef("-t must be above 0 and at most 60")
	}
	if err != nil {
		return f.Exit(err)
	}
	return ask(ctx, f, func(ctx context.Context, c *app.Client) error {
		ctx, cancel := context.WithTimeout(ctx, askTimeout+time.Duration(2**seconds*float64(time.Second)))
		defer cancel()
		var r api.BenchResult
		if err := c.Call(ctx, "node.bench", api.BenchParams{Key: words[0], Seconds: *seconds}, &r); err != nil {
			if errors.Is(err, signal.ErrNotFound) {
				return fmt.Errorf("%w (does the other node run?)", err)
			}
			return err
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		fmt.Fprintf(e.Stdout, "to it %.1f Mbit/s, from it %.1f Mbit/s\n", r.SendMbit, r.ReceiveMbit)
		return nil
	})
}
