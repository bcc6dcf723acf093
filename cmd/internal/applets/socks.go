package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
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
			{Name: "client", Args: "[--listen ADDR] [--server NODE|auto]… [--rule RULE]… [--user U --pass-file F]", Summary: "SOCKS and HTTP on one port", Run: socksClient},
			{Name: "rules", Args: "test HOST:PORT", Summary: "what the client's rules do with a connection", Run: socksRules},
			{Name: "server", Args: "[--allow KEY]… [--allow-private]", Summary: "be an exit for the mesh", Run: socksServer},
			{Name: "status", Summary: "what the client and server of this box do", Run: socksStatus},
			{Name: "publish", Args: "NAME[:PORT]=URL… [--allow [NAME=]WORD]…", Summary: "offer programs behind this node to chosen nodes", Run: socksPublish},
			{Name: "grant", Args: "SERVICE WORD", Summary: "let one more use what is published", Run: socksGrant},
			{Name: "revoke", Args: "SERVICE WORD", Summary: "take that back, and end what runs", Run: socksRevoke},
			{Name: "published", Summary: "what this box publishes, and to whom", Run: socksPublished},
			{Name: "services", Args: "[NODE]", Summary: "what the nodes of the mesh publish", Run: socksServices},
			{Name: "forward", Args: "--local LISTEN=NODE:SERVICE…", Summary: "local ports that lead to published services", Run: socksForward},
			{Name: "servers", Args: "[--ping]", Summary: "who offers an exit", Run: socksServers},
		},
	}.Applet()
}

// socksConfig is the section "socks" of config.yaml.
type socksConfig struct {
	Client socksClientConfig `yaml:"client"`
	Server socksServerConfig `yaml:"server"`

	Publish socksPublishConfig `yaml:"publish"`
	Forward socksForwardConfig `yaml:"forward"`
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
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
		var all []socksReport
		if err := node.Call(ctx, "app.list", nil, &all); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(r socksReport) bool { return socksPrinter(r.Kind) == nil })
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
		if err := socksPrinter(r.Kind)(e, r); err != nil {
			return fmt.Errorf("status of %s: %w", r.Name, err)
		}
	}
	return nil
}

// socksPrinter prints the state of an app of socks; nil: it is none.
func socksPrinter(kind string) func(*applet.Env, socksReport) error {
	switch kind {
	case socksClientKind:
		return socksPrintClient
	case socksServerKind:
		return socksPrintServer
	case socksForwardKind:
		return socksPrintForward
	case socksPublishKind:
		return socksPrintPublisher
	}
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
	return askNode(ctx, f, func(ctx context.Context, node *app.Client) error {
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
