package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/socks"
	"skywire/socks/proxy"
	"skywire/socks/publish"
)

type socksClientConfig struct {
	Name        string   `yaml:"name"`
	Listen      string   `yaml:"listen"`
	Transparent string   `yaml:"transparent"`
	Server      wordList `yaml:"server"`
	Rules       []string `yaml:"rules"`
	Optimistic  bool     `yaml:"optimistic"`
	User        string   `yaml:"user"`
	PassFile    string   `yaml:"pass_file"`
	UsersFile   string   `yaml:"users_file"`
	Open        bool     `yaml:"open"`
	Connections int      `yaml:"connections"`

	Trackers []string `yaml:"trackers"`
}

// wordList is a list in config.yaml that may be written as one word, or as words with commas.
type wordList []string

// UnmarshalYAML takes both forms.
func (l *wordList) UnmarshalYAML(decode func(any) error) error {
	var word string
	if decode(&word) == nil {
		*l = strings.Split(word, ",")
		return nil
	}
	return decode((*[]string)(l))
}

// words are the list's, however they were given.
func (l wordList) words() []string { return strings.Split(strings.Join(l, ","), ",") }

const socksClientAbout = `Runs the proxy that programs of this box use: SOCKS5 with UDP, SOCKS4a and HTTP on one port.

    curl --proxy socks5h://127.0.0.1:1080 https://example.com/     names are resolved at the exit
    curl --proxy http://127.0.0.1:1080 http://example.com/
    git -c http.proxy=socks5h://127.0.0.1:1080 clone …
    ssh -o ProxyCommand='nc -X 5 -x 127.0.0.1:1080 %h %p' host
    http://127.0.0.1:1080/proxy.pac                                the rules, for browsers

BIND is refused: an exit has rarely an address that others could connect to. SERVICE.NAME.mesh:PORT leads to what that
node has published, whatever the exit.

The exit: with --server auto the nearest that is not overloaded and allows this node; it stays with it, and changes to the
next when it fails. Several --server are tried in their order. "skywire socks servers" lists them. With --optimistic a
program is answered before the exit is, so its first bytes travel with the target, a round trip earlier; a target that
cannot be reached then shows as a broken connection in place of an error.

What a peered cluster exports is an exit too: --server lan@oslo, a subnet or an exit of theirs (skywire node services).

The first rule that matches decides: --rule 'CONDITION[,CONDITION…]=ACTION'. Conditions: suffix:DOMAIN, name:HOST,
cidr:NET (addresses only, names are resolved at the exit), port:N or N-M, user:NAME, from:NET, net:tcp|udp, any; several
values with | between them. Actions: direct, block, exit, or NODE[,NODE…].

    --rule 'suffix:lan|example.com=direct' --rule 'user:ann=alice' --rule 'port:25=block'

An address beyond this box (0.0.0.0:1080) needs --user and --pass-file or --users-file (lines NAME:PASSWORD), or --open if
everybody who reaches it may use your exit. A unix socket (unix:PATH) is this user's alone, with --open everybody's.

On a router, --transparent tproxy:1081 (TCP and UDP; needs CAP_NET_ADMIN) or redirect:1081 (TCP) takes what the kernel
diverts to it; --print-rules prints the script that makes it do so for what comes from --device.

The 2017 form is understood: socks client NAME NODE_ADDR PORT. The node is the one of this box, as ever with --run; PORT
is the local port.`

func socksClient(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks client", "[flags]", socksClientAbout)
	c := socksConfig{Client: socksClientConfig{Listen: "127.0.0.1:1080", Server: wordList{"auto"}}}
	v := &c.Client
	f.StringVar(&v.Listen, "listen", v.Listen, "`ADDR` to listen on: HOST:PORT or unix:PATH, several with commas")
	f.StringVar(&v.Transparent, "transparent", "", "`HOW:PORT` of diverted connections: tproxy or redirect")
	device := f.String("device", "br-lan", "with --print-rules, the device `NAME` that the diverted boxes are behind")
	print := f.Bool("print-rules", false, "print the firewall script for --transparent and end")
	f.ListVar((*[]string)(&v.Server), "server", "the exit: `NODE` as key, petname, name.mesh or mesh address; or auto (repeatable, in order); or NAME@CLUSTER alone")
	f.ListVar(&v.Rules, "rule", "`RULE` CONDITION[,CONDITION…]=direct|block|exit|NODE (repeatable, the first that matches)")
	f.BoolVar(&v.Optimistic, "optimistic", false, "answer programs at once, so that their first bytes travel with the target")
	f.StringVar(&v.User, "user", "", "`NAME` that programs have to give")
	f.StringVar(&v.PassFile, "pass-file", "", "`FILE` with the password in its first line")
	f.StringVar(&v.UsersFile, "users-file", "", "`FILE` with lines NAME:PASSWORD, for several users")
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
	if err == nil && *print {
		return f.Exit(socksPrintRules(e, v.Transparent, *device))
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runSocksClient(ctx, f, *v) })
}

// socksService tells servers of this mesh from what a peered cluster exports, NAME@CLUSTER, and returns the service and the
// nodes to ask for it.
func socksService(servers []string) (service string, nodes []string, err error) {
	exported := func(s string) bool { return strings.Index(s, "@") > 0 }
	switch {
	case len(servers) == 1 && exported(servers[0]):
		return servers[0], []string{"auto"}, nil
	case slices.ContainsFunc(servers, exported):
		return "", nil, applet.Usagef("--server NAME@CLUSTER stands alone: run a second proxy for the others")
	}
	return proxy.Service, servers, nil
}

func socksPrintRules(e *applet.Env, transparent, device string) error {
	if transparent == "" {
		return applet.Usagef("--print-rules goes with --transparent tproxy:PORT or redirect:PORT")
	}
	script, err := proxy.DivertingRules(transparent, device)
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	_, err = io.WriteString(e.Stdout, script)
	return err
}

func runSocksClient(ctx context.Context, f *applet.Flags, v socksClientConfig) error {
	cred, err := socksCredentials(f.Env(), v)
	if err != nil {
		return err
	}
	rules, err := socks.ParseRules(v.Rules)
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	service, servers, err := socksService(v.Server.words())
	if err != nil {
		return err
	}
	node, err := awaitNode(ctx, f, startWait(f.Env()))
	if err != nil {
		return err
	}
	defer node.Close()
	p, err := proxy.NewClient(proxy.ClientConfig{
		Node: proxy.ForClient(node, service), Listen: v.Listen, Transparent: v.Transparent, Servers: servers, Rules: rules,
		Optimistic: v.Optimistic, Credentials: cred, Open: v.Open, Connections: v.Connections,
		Finders: socksFinders(node, v.Trackers), Names: publish.NewFinder(node), Log: f.Logger(),
	})
	if errors.Is(err, proxy.ErrExposed) {
		return applet.Usagef("%w: add --user and --pass-file, or --open if that is meant, or listen on 127.0.0.1", err)
	}
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	for _, s := range servers {
		if err := socksKnown(ctx, node, s); err != nil {
			return err
		}
	}
	if v.Name == "" {
		v.Name = socksClientKind
		first, _, _ := strings.Cut(v.Listen, ",")
		if _, port, err := net.SplitHostPort(first); err == nil && port != "1080" && !strings.HasPrefix(first, "unix:") {
			v.Name += "-" + port // several clients beside one node
		}
	}
	if err := node.Register(ctx, app.Registration{Name: v.Name, Kind: socksClientKind}); err != nil {
		return fmt.Errorf("register %q with the node: %w", v.Name, err)
	}
	return besideNode(ctx, f, node, p.Run)
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

// socksCredentials reads the passwords.
func socksCredentials(e *applet.Env, v socksClientConfig) (socks.Credentials, error) {
	if (v.User == "") != (v.PassFile == "") {
		return nil, applet.Usagef("--user and --pass-file go together")
	}
	all := make(socks.Credentials)
	if v.User != "" {
		b, err := socksSecretFile(e, v.PassFile)
		if err != nil {
			return nil, err
		}
		line, _, _ := strings.Cut(b, "\n")
		if err := socksAddUser(all, v.User, strings.TrimSuffix(line, "\r")); err != nil {
			return nil, fmt.Errorf("password: %s: %w", v.PassFile, err)
		}
	}
	if v.UsersFile == "" {
		return all, nil
	}
	b, err := socksSecretFile(e, v.UsersFile)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(b, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		user, password, _ := strings.Cut(line, ":")
		if err := socksAddUser(all, user, password); err != nil {
			return nil, fmt.Errorf("users: %s, line %d: %w", v.UsersFile, i+1, err)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("users: %s: nobody in it; want lines NAME:PASSWORD", v.UsersFile)
	}
	return all, nil
}

func socksAddUser(all socks.Credentials, user, password string) error {
	if user == "" || password == "" || len(user) > 255 || len(password) > 255 {
		return errors.New("want a name and a password of 1 to 255 bytes each")
	}
	all[user] = password
	return nil
}

// socksSecretFile reads a file that nobody else should.
func socksSecretFile(e *applet.Env, file string) (string, error) {
	i, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	if i.Mode().Perm()&0o077 != 0 && i.Mode()&fs.ModeNamedPipe == 0 {
		e.Talk("socks", "other users can read %s: chmod 600 %s", file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return string(b), nil
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
	if s.Packets > 0 || s.Direct > 0 || s.Blocked > 0 {
		fmt.Fprintf(e.Stdout, "  %d direct, %d blocked; UDP: %d associations now, %d packets, %d dropped\n",
			s.Direct, s.Blocked, s.Associations, s.Packets, s.Dropped)
	}
	for _, x := range s.Exits {
		rtt := "not measured"
		if x.RTT != nil {
			rtt = fmt.Sprintf("%.1f ms", *x.RTT)
		}
		if x.Load != nil {
			rtt += fmt.Sprintf(", load %d %%", *x.Load)
		}
		if x.Fault != "" {
			rtt += ", " + x.Fault
		}
		fmt.Fprintf(e.Stdout, "  exit %s: %s\n", x.Key, rtt)
	}
	return nil
}
