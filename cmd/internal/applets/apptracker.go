//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/tracker"
)

func apptrackerApplet() applet.Applet {
	return applet.Command{
		Name:    tracker.ServiceName,
		Summary: "registry of the services that nodes offer",
		About: "Beside the node of this box: apptracker run\n" +
			"As in 2017, over TCP too:    apptracker 127.0.0.1:20000\n\n" +
			"An entry lasts 90 s and is renewed every 30 by the node that offers the service.",
		Verbs: []applet.Verb{
			{Name: "run", Args: "[ADDR]", Summary: "the daemon", Run: apptrackerRun},
			{Name: "list", Args: "[--type T] [--addr ADDR]", Summary: "the services known", Run: apptrackerList},
		},
		Default: apptrackerRun,
		DefaultTakes: func(args []string) bool {
			_, _, err := net.SplitHostPort(args[0])
			return err == nil
		},
	}.Applet()
}

// apptrackerConfig is the section "apptracker" of config.yaml.
type apptrackerConfig struct {
	Listen string `yaml:"listen"`
}

const apptrackerRunAbout = `Runs the registry. Nodes of the mesh reach it through the node of this box, as service "apptracker"; with ADDR
(HOST:PORT) it also answers over TCP, where only signed records are taken. With ADDR it does without a node, and takes
it up when one starts.`

func apptrackerRun(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "apptracker run", "[ADDR]", apptrackerRunAbout)
	var c apptrackerConfig
	words, err := f.Parse(0, 1)
	if err == nil {
		err = f.Overlay(openSections, tracker.ServiceName, &c)
	}
	if err == nil && len(words) == 1 {
		c.Listen = words[0]
	}
	if err == nil && c.Listen != "" {
		if _, _, split := net.SplitHostPort(c.Listen); split != nil {
			err = applet.Usagef("ADDR %q is no HOST:PORT", c.Listen)
		}
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runApptracker(ctx, f, c) })
}

func runApptracker(ctx context.Context, f *applet.Flags, c apptrackerConfig) error {
	t := tracker.Config{Network: key.Open(), Log: f.Logger()}
	if c.Listen == "" {
		node, err := awaitNode(ctx, f, managerNodeWait)
		if err != nil {
			return err
		}
		defer node.Close()
		t.Network = node.Self().Network
		t.Connect = func(context.Context) (tracker.Node, error) { return tracker.FromApp(node), nil }
		return runTracker(ctx, f, t, node)
	}
	// A tracker with an address runs without a node, too; then it is one for the open network.
	node, err := app.Dial(ctx, f.Run)
	switch {
	case err == nil:
		defer node.Close()
		t.Network = node.Self().Network
	case !errors.Is(err, app.ErrNotRunning):
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen %s: %w; is another apptracker running? give another ADDR", c.Listen, err)
	}
	defer l.Close()
	t.Listen = l
	f.Logger().Info("tracker listens", "addr", l.Addr().String())
	if node != nil {
		t.Connect = func(context.Context) (tracker.Node, error) { return tracker.FromApp(node), nil }
		return runTracker(ctx, f, t, node)
	}
	late := lateNode{run: f.Run, network: t.Network}
	defer late.close()
	t.Connect = late.connect
	return runTracker(ctx, f, t, nil)
}

func runTracker(ctx context.Context, f *applet.Flags, c tracker.Config, node *app.Client) error {
	t, err := tracker.New(c)
	if err != nil {
		return err
	}
	if node == nil {
		ready(f.Env()) // it listens already
		return t.Run(ctx)
	}
	return besideNode(ctx, f, node, t.Run)
}

// lateNode takes up a node that starts after the tracker.
type lateNode struct {
	run     string
	network key.NetworkID
	node    *app.Client
	ended   chan struct{}
	cancel  context.CancelFunc
}

// errOtherNetwork is returned when a node starts beside a tracker that serves another network.
var errOtherNetwork = errors.New("the node that has started is of another network; start the apptracker again")

// lateRetry is how often it looks for a node.
const lateRetry = 2 * time.Second

func (n *lateNode) connect(ctx context.Context) (tracker.Node, error) {
	tick := time.NewTicker(lateRetry)
	defer tick.Stop()
	for {
		node, err := app.Dial(ctx, n.run)
		if err == nil {
			if node.Self().Network != n.network {
				return nil, errors.Join(errOtherNetwork, node.Close())
			}
			n.node, n.ended = node, make(chan struct{})
			tie, cancel := context.WithCancel(ctx)
			n.cancel = cancel
			go func() { // ends with close, which waits for it
				defer close(n.ended)
				_ = node.Run(tie)
			}()
			return tracker.FromApp(node), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func (n *lateNode) close() {
	if n.node != nil {
		n.cancel()
		n.node.Close()
		<-n.ended
	}
}

func apptrackerList(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "apptracker list", "[--type T] [--addr HOST:PORT] [--json]",
		"Lists the services that the apptracker of this box knows, or the one at --addr.")
	kind := f.String("type", "", "only services of this `TYPE`: vpn, socks, …")
	addr := f.String("addr", "", "ask the tracker at `HOST:PORT` instead")
	_, err := f.Parse(0, 0)
	if err == nil && *addr != "" {
		if _, _, split := net.SplitHostPort(*addr); split != nil {
			err = applet.Usagef("--addr %q is no HOST:PORT", *addr)
		}
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, managerTimeout)
		defer cancel()
		all, err := apptrackerEntries(ctx, f, *kind, *addr)
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("TYPE", "NAME", "KEY", "PORT", "SEEN", "META")
		for _, s := range all {
			port := ""
			if s.Port != 0 {
				port = fmt.Sprint(s.Port)
			}
			t.Row(s.Type, s.Name, s.Key, port, ago(s.Seen), strings.TrimSpace(s.Meta))
		}
		return t.Flush()
	})
}

func apptrackerEntries(ctx context.Context, f *applet.Flags, kind, addr string) ([]tracker.Entry, error) {
	if addr != "" {
		c, err := tracker.DialTCP(ctx, addr)
		if err != nil {
			return nil, applet.WithCode(applet.NotRunning, fmt.Errorf("%w; start one with: skywire apptracker run %s", err, addr))
		}
		defer c.Close()
		return c.List(ctx, kind)
	}
	node, err := app.Dial(ctx, f.Run)
	if errors.Is(err, app.ErrNotRunning) {
		err = fmt.Errorf("%w; or ask a tracker by TCP: --addr HOST:PORT", noNode(err))
	}
	if err != nil {
		return nil, err
	}
	defer node.Close()
	return tracker.Pages(func(p tracker.ListParams, page *[]tracker.Entry) error {
		return callApp(ctx, node, tracker.ServiceName, tracker.MethodList, p, page)
	}, kind)
}
