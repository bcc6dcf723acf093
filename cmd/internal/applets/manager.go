//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager"
	"skywire/mesh/store"
)

// managerName is the applet, its app beside the node, its section and its state file.
const managerName = "manager"

// managerNodeWait is how long a manager waits for the node of its box: both may have been started together.
const managerNodeWait = 15 * time.Second

func managerApplet() applet.Applet {
	return applet.Command{
		Name:    managerName,
		Summary: "sees all nodes and links of the mesh and proposes paths",
		About: "A cluster of your own, in three steps:  manager cluster create; manager run; manager invite\n\n" +
			"Beside the node of this box:            manager run\n" +
			"With a node of its own, in one process: manager run --listen udp://0.0.0.0:4000 --open\n" +
			"On the other boxes:                     node run --manager KEY@ADDR      (KEY: manager id)\n\n" +
			"No traffic stops when the manager does: nodes find paths from the records that they hold.",
		Verbs: append([]applet.Verb{
			{Name: "run", Args: "[--listen ADDR]… [--approve]", Summary: "the daemon", Run: managerRun},
			{Name: "nodes", Summary: "all nodes, with what they offer", Run: managerNodes},
			{Name: "links", Summary: "all links that both ends state", Run: managerLinks},
			{Name: "path", Args: "A B [-k N] [--avoid NODE]…", Summary: "disjoint paths between two nodes, the best first", Run: managerPath},
			{Name: "id", Summary: "the key that nodes name in --manager", Run: managerID},
		}, memberVerbs()...),
	}.Applet()
}

// managerConfig is the section "manager" of config.yaml.
type managerConfig struct {
	Listen []string `yaml:"listen"`
	Name   string   `yaml:"name"`
	Open   bool     `yaml:"open"`
	Allow  []string `yaml:"allow"`
	Peers  []string `yaml:"peers"`
	// Approve makes joiners wait for a person; CertificateDays is the life of certificates, 0: 90 days.
	Approve         bool `yaml:"approve"`
	CertificateDays int  `yaml:"certificate_days"`
}

const managerRunAbout = `Runs the manager beside the node of this box, or, with --listen, a node and the manager in one process.

It keeps the records of all nodes in --state (manager.db), tells nodes that asked which paths are best when the mesh
changes, and answers the other verbs. --name, --open, --allow and --peer go to the node that --listen starts; they mean
what they mean in "node run".`

func managerRun(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager run", "[--listen ADDR]… [flags]", managerRunAbout)
	var c managerConfig
	f.ListVar(&c.Listen, "listen", "run a node too, at `ADDR` (repeatable)")
	f.StringVar(&c.Name, "name", "", "`NAME` of that node")
	f.BoolVar(&c.Open, "open", false, "anyone may link to that node")
	f.ListVar(&c.Allow, "allow", "`KEY` that may link to that node (repeatable)")
	f.ListVar(&c.Peers, "peer", "`KEY@ADDR` that that node links to (repeatable)")
	issuerFlags(f, &c)
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, managerName, &c)
	}
	if err == nil && (c.CertificateDays < 0 || c.CertificateDays > 3650) {
		err = applet.Usagef("--certificate-days %d: 1 to 3650", c.CertificateDays)
	}
	if err == nil && len(c.Listen) == 0 && (c.Name != "" || c.Open || len(c.Allow)+len(c.Peers) > 0) {
		err = applet.Usagef("--name, --open, --allow and --peer are for the node that --listen starts; give --listen ADDR too")
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		if len(c.Listen) == 0 {
			return runManager(ctx, f, c)
		}
		return runManagerWithNode(ctx, f, c)
	})
}

// runManagerWithNode runs the node applet as another program would, on the same folders, and the manager beside it; the
// end of one is the end of both.
func runManagerWithNode(ctx context.Context, f *applet.Flags, c managerConfig) error {
	i := slices.IndexFunc(All(), func(a applet.Applet) bool { return a.Name == "node" })
	if i < 0 {
		return errors.New("this program has no node in it; start one, and the manager without --listen")
	}
	args := []string{"run", "--state", f.State, "--run", f.Run, "--log-level", f.LogLevel.String()}
	if f.Given("config") { // a default that is not there is no error only as long as nobody names it
		args = append(args, "--config", f.Config)
	}
	if f.LogJSON {
		args = append(args, "--log-json")
	}
	if c.Name != "" {
		args = append(args, "--name", c.Name)
	}
	if c.Open {
		args = append(args, "--open")
	}
	for flag, values := range map[string][]string{"--listen": c.Listen, "--allow": c.Allow, "--peer": c.Peers} {
		for _, v := range values {
			args = append(args, flag, v)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var node sync.WaitGroup
	status := applet.OK
	node.Go(func() {
		defer cancel()
		status = All()[i].Run(ctx, f.Env().With(args))
	})
	err := runManager(ctx, f, c)
	cancel()
	node.Wait()
	if status != applet.OK {
		return applet.WithCode(status, errors.New("the node of this manager ended; see above"))
	}
	return err
}

func runManager(ctx context.Context, f *applet.Flags, c managerConfig) error {
	log := f.Logger()
	node, err := awaitNode(ctx, f, managerNodeWait)
	if err != nil {
		return err
	}
	defer node.Close()
	db, err := store.Open(filepath.Join(f.State, managerName+".db"), store.Options{})
	switch {
	case errors.Is(err, store.ErrFull):
		log.Warn("state is not kept", "err", err)
	case err != nil:
		return err
	}
	defer db.Close()
	if w := db.Warning(); w != nil {
		log.Warn("state was damaged", "err", w)
	}
	issuer, err := newIssuer(f, node, db, c, log)
	if err != nil {
		return err
	}
	m, err := manager.New(manager.Config{Node: manager.FromApp(node), Store: db, Program: programVersion(), Issuer: issuer, Log: log})
	if err != nil {
		return err
	}
	return besideNode(ctx, f, node, m.Run)
}

// managerTimeout bounds a question of a person.
const managerTimeout = 15 * time.Second

// askManager parses the flags of a verb that asks one thing and prints it.
func askManager(ctx context.Context, f *applet.Flags, ask func(ctx context.Context, node *app.Client) error) int {
	return f.Duty(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, managerTimeout)
		defer cancel()
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		return ask(ctx, node)
	})
}

// managerPages asks the manager for all pages of a list; after names the last element of the page before.
func managerPages[T any](ctx context.Context, node *app.Client, method string, after func(last T) any) ([]T, error) {
	all := []T{}
	var last T
	for {
		var page []T
		if err := callApp(ctx, node, managerName, method, after(last), &page); err != nil || len(page) == 0 {
			return all, err
		}
		all, last = append(all, page...), page[len(page)-1]
	}
}

func managerNodes(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager nodes", "[--json]", "Lists all nodes that the manager of this box knows.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		all, err := managerPages(ctx, node, manager.MethodNodes, func(last manager.NodeInfo) any { return manager.NodesParams{After: last.Key} })
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("NAME", "KEY", "STATE", "SEEN", "ADDRESS", "LINKS", "SERVICES", "VERSION")
		for _, n := range all {
			t.Row(n.Name, n.Key, onlineWord(n.Online), ago(n.LastSeen), n.Address, len(n.Links), serviceWords(n.Services), n.Version)
		}
		return t.Flush()
	})
}

func onlineWord(online bool) string {
	if online {
		return "online"
	}
	return "offline"
}

// ago prints a time in the past for people.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return ""
	case d < 10*time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h ago", int(d.Hours()))
}

func serviceWords(services []manager.ServiceInfo) string {
	var words []string
	for _, s := range services {
		word := s.Name
		if s.Type != "" && s.Type != s.Name {
			word += ":" + s.Type
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func managerLinks(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager links", "[--json]", "Lists all links that both of their ends state, at the worse of their measures.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		all, err := managerPages(ctx, node, manager.MethodLinks, func(last manager.LinkInfo) any { return manager.LinksParams{AfterA: last.A, AfterB: last.B} })
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("A", "B", "RTT", "JITTER", "LOSS", "CAPACITY", "CARRIER", "MTU", "UP", "COST")
		for _, l := range all {
			t.Row(nodeWord(l.AName, l.A), nodeWord(l.BName, l.B), millis(l.RTT), millis(l.Jitter), percent(l.Loss), kbit(l.Capacity), l.Carrier, l.MTU,
				seconds(l.UpS), fmt.Sprintf("%.1f", float64(l.Cost)/1000))
		}
		return t.Flush()
	})
}

func nodeWord(name string, k key.Public) string {
	if name == "" {
		return k.Short()
	}
	return name
}

func managerPath(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager path", "A B [-k N] [--avoid NODE]… [--trust NODE]… [--prefer NODE]… [--max-hops N] [--json]",
		"Computes disjoint paths from node A to node B, the best first. Nodes are keys, names or mesh addresses.")
	k := f.Int("k", 2, "how many paths at most (`N`)")
	var p manager.PathParams
	f.ListVar(&p.Avoid, "avoid", "not over `NODE`, repeatable")
	f.ListVar(&p.Trusted, "trust", "over `NODE` and such others only, repeatable")
	f.ListVar(&p.Prefer, "prefer", "rather over `NODE`, repeatable: others count twice")
	f.IntVar(&p.MaxHops, "max-hops", 0, "`N` links at most")
	words, err := f.Parse(2, 2)
	if err == nil && *k < 1 {
		err = applet.Usagef("-k %d: at least 1", *k)
	}
	if err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		var all []manager.PathInfo
		p.From, p.To, p.K = words[0], words[1], *k
		if err := callApp(ctx, node, managerName, manager.MethodPath, p, &all); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("PATH", "RTT", "LOSS", "CAPACITY", "COST")
		for _, path := range all {
			hops := make([]string, len(path.Hops))
			for i, h := range path.Hops {
				name := ""
				if i < len(path.Names) {
					name = path.Names[i]
				}
				hops[i] = nodeWord(name, h)
			}
			t.Row(arrows(hops), millis(path.RTT), percent(path.Loss), kbit(path.Capacity), fmt.Sprintf("%.1f", float64(path.Cost)/1000))
		}
		return t.Flush()
	})
}

func managerID(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager id", "[--json]", "Prints the key of the manager: nodes are given it as --manager KEY@ADDR.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		var id manager.ID
		if err := callApp(ctx, node, managerName, manager.MethodID, nil, &id); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(id)
		}
		_, err := fmt.Fprintln(e.Stdout, id.Key)
		return err
	})
}
