//go:build web || !(mips || mipsle || mini)

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/signal"
	"skywire/supervisor"
	"skywire/supervisor/api"
	"skywire/supervisor/config"
	"skywire/supervisor/web"
)

// page is the web page of a viscript.
type page struct {
	f      *applet.Flags
	listen string
	shown  bool // its numbers are served to Prometheus
	log    *slog.Logger

	mu     sync.Mutex // guards server
	server *api.Server
}

// webPage returns the page that flags and config.yaml want; nil: none.
func webPage(f *applet.Flags, headless bool, log *slog.Logger) supervisor.Page {
	p := &page{f: f, listen: config.DefaultWeb, log: log}
	if file, err := config.Load(f.Config); err == nil { // an error in it is said by others
		headless = headless || file.Settings.RunHeadless
		p.shown = file.Settings.Web.Metrics
		if l := file.Settings.Web.Listen; l != "" {
			p.listen = l
		}
	}
	if headless {
		return nil
	}
	return p
}

// Run implements supervisor.Page.
func (p *page) Run(ctx context.Context, s *supervisor.Supervisor) error {
	c := api.Config{Listen: p.listen, Page: web.Page(), Log: p.log, Node: p.node, Boxes: func(ctx context.Context) ([]string, error) {
		boxes, err := nodesOf(p.f)(ctx, allBoxes)
		keys := make([]string, len(boxes))
		for i, b := range boxes {
			keys[i] = b.Word
		}
		return keys, err
	}}
	if p.shown {
		c.Metrics = s.Metrics
	}
	elsewhere := dialOperator(p.f)
	c.Dial = func(dialling context.Context, node string) (io.ReadWriteCloser, error) {
		if node != "" {
			return elsewhere(dialling, node)
		}
		near, far := net.Pipe()
		go s.ServeStream(ctx, far, supervisor.Caller{Name: "web page", Scope: supervisor.Admin}) //nolint:errcheck // ends with the stream
		return near, nil
	}
	server, err := api.New(c)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	p.log.Info("web page", "addr", server.Address())
	return server.Run(ctx)
}

// Invite implements supervisor.Page.
func (p *page) Invite() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return "", signal.Errorf(signal.ErrNotRunning, "the web page is not there: viscript's log says why (is %s taken?)", p.listen)
	}
	return p.server.Invite(), nil
}

// node asks the node of this box what changes nothing.
func (p *page) node(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	if !slices.Contains([]string{"node.status", "node.peers", "node.paths", "node.routes", "node.services", "node.why"}, method) {
		return nil, signal.Errorf(signal.ErrUnknownMethod, "the page may not call %q", method)
	}
	node, err := app.Dial(ctx, p.f.Run)
	if errors.Is(err, app.ErrNotRunning) {
		return nil, signal.Errorf(signal.ErrNotRunning, "no node runs on this box")
	}
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	defer node.Close()
	var result json.RawMessage
	err = node.Call(ctx, method, params, &result)
	return result, err
}
