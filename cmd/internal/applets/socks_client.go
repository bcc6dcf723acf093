package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/socks"
	"skywire/socks/proxy"
)

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
	return socks.Credentials{user: line}, nil
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
