package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/signal/auto"
	"skywire/supervisor/config"
)

// What the applets share that run beside a node: the config file, the tie to the node, the words of 2017.

// openSections reads the box's config.yaml.
func openSections(path string) (applet.Sections, error) {
	f, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// awaitNode connects to the node of this box; it gives one that is just starting some time, with a word to the person
// who waits.
func awaitNode(ctx context.Context, f *applet.Flags, wait time.Duration) (*app.Client, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	retry := time.NewTicker(200 * time.Millisecond)
	defer retry.Stop()
	for told := false; ; told = true {
		node, err := app.Dial(ctx, f.Run)
		if err == nil {
			return node, nil
		}
		if !errors.Is(err, app.ErrNotRunning) {
			return nil, noNode(err)
		}
		if !told && wait > 0 {
			f.Logger().Info("waiting for the node", "run", f.Run)
		}
		if wait <= 0 {
			return nil, noNode(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return nil, noNode(err)
		case <-retry.C:
		}
	}
}

// startWait is how long a daemon waits for the node of its box. Viscript or a service manager may have started both in the same moment;
// a person is told at once.
func startWait(e *applet.Env) time.Duration {
	if _, ok := auto.ID(); ok || e.Getenv("NOTIFY_SOCKET") != "" {
		return 5 * time.Second
	}
	return 0
}

// askNode does what asks the node of this box, and returns the exit status.
func askNode(ctx context.Context, f *applet.Flags, do func(context.Context, *app.Client) error) int {
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		return do(ctx, node)
	})
}

// noNode adds the remedy to an error that says that no node answers.
func noNode(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return applet.WithCode(applet.Refused, fmt.Errorf("%w; run this as the node's user or as root", err))
	}
	if !errors.Is(err, app.ErrNotRunning) {
		return err
	}
	return fmt.Errorf("%w; start it with: skywire node run (or say with --run where its sockets are)", err)
}

// besideNode runs an app and, next to it, what keeps its tie to the node.
func besideNode(ctx context.Context, f *applet.Flags, node *app.Client, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tie sync.WaitGroup
	var tieErr error
	tie.Go(func() { tieErr = node.Run(ctx) })
	ready(f.Env())
	err := run(ctx)
	cancel()
	tie.Wait()
	return errors.Join(err, tieErr)
}

// programVersion is what nodes and managers tell others of their program.
func programVersion() string { return applet.Version().Version }

// callApp asks an app of this box through the node.
func callApp(ctx context.Context, node *app.Client, name, method string, params, result any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	err = node.Call(ctx, "app.call", app.CallParams{App: name, Method: method, Params: raw}, result)
	if !errors.Is(err, signal.ErrNotFound) {
		return err
	}
	// The app is missing, or it misses what was asked for.
	type named struct {
		Name string `json:"name"`
	}
	var apps []named
	if listErr := node.Call(ctx, "app.list", nil, &apps); listErr != nil {
		return errors.Join(err, listErr)
	}
	if slices.ContainsFunc(apps, func(a named) bool { return a.Name == name }) {
		return err
	}
	return applet.WithCode(applet.NotRunning, fmt.Errorf("the %s of this box is not running; start it with: skywire %s run", name, name))
}

// allowed opens the words of --allow: keys or names of nodes, or any. Without a word, the members of a cluster may use what
// its boxes offer, and in an open mesh nobody.
func allowed(ctx context.Context, node *app.Client, words []string) (keys []key.Public, everybody bool, err error) {
	if len(words) == 0 {
		return nil, node.Self().Prefix != key.Open().Prefix(), nil
	}
	for _, w := range words {
		if w == "any" || w == app.AnyMember {
			everybody = true
			continue
		}
		k, err := node.Resolve(ctx, w)
		if err != nil {
			return nil, false, fmt.Errorf("--allow %s: %w; a key is what skywire node id prints on that box", w, err)
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys, everybody, nil
}

// allowWords opens the words of --allow, KEY, petname, @TAG or any, in the form that services state; a nil list is nobody.
func allowWords(ctx context.Context, node *app.Client, words []string) ([]string, error) {
	var out, names []string
	for _, w := range words {
		if len(w) > len(app.TagMark) && strings.HasPrefix(w, app.TagMark) && w != app.Guests {
			out = append(out, w)
			continue
		}
		names = append(names, w)
	}
	if len(names) == 0 && len(out) > 0 {
		return out, nil
	}
	keys, everybody, err := allowed(ctx, node, names)
	if everybody {
		return []string{app.AnyMember}, err
	}
	for _, k := range keys {
		out = append(out, k.String())
	}
	return out, err
}

// nodeAddr2017 looks at the NODE_ADDR of a form of 2017. An app speaks to the node of its own box now, so another box's
// address earns a word, no more: what was written in 2017 runs.
func nodeAddr2017(e *applet.Env, name, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return applet.Usagef("NODE_ADDR %q is no HOST:PORT", addr)
	}
	if !localHost(host) {
		e.Talk(name, "%s is no address of this box; an app speaks to the node of its own box now, the one whose sockets are in --run", addr)
	}
	return nil
}

// localHost reports whether host is this box.
func localHost(host string) bool {
	if host == "localhost" || host == "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(o net.Addr) bool {
		n, ok := o.(*net.IPNet)
		return ok && n.IP.Equal(a.AsSlice())
	})
}
