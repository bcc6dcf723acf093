package supervisor

import (
	"context"
	"fmt"
	"io"
	"strings"

	"skywire/signal"
)

// Scope is what a caller may do; each includes those before it.
type Scope int

// The scopes.
const (
	None    Scope = iota
	Read          // look: ps, ru, logs, …
	Operate       // start, stop, restart, attach to what is configured
	Admin         // change what is configured, and viscript itself
)

func (s Scope) String() string {
	return [...]string{"none", "read", "operate", "admin"}[s]
}

// scopeOf is what a method of the control socket needs; one that is not here needs Admin.
func scopeOf(method string) Scope {
	switch strings.TrimPrefix(method, "viscript.") {
	case "status", "apps", "help", "ps", "ping", "ru", "top", "logs", "events", "describe", "versions", "metrics":
		return Read
	case "start", "stop", "restart", "attach", "input", "resize", "signal":
		return Operate
	}
	return Admin
}

// Caller is who asks over the control socket or a stream.
type Caller struct {
	Name  string // for the record of who did what: a key, or a user of this box
	Scope Scope
}

// ServeStream answers an operator of another box until the stream or ctx ends. Whoever calls it knows who is at the
// other end.
func (s *Supervisor) ServeStream(ctx context.Context, rw io.ReadWriteCloser, c Caller) error {
	at := &attachments{}
	defer at.leave()
	conn := signal.NewConn(rw, func(ctx context.Context, r *signal.Request) (any, error) { return s.control(ctx, r, c, at) })
	return conn.Run(ctx)
}

// admit checks a caller's scope, and records who changes something.
func (s *Supervisor) admit(ctx context.Context, c Caller, method string, p params) error {
	need := scopeOf(method)
	if c.Scope < need {
		s.log.Warn("command refused", "type", method, "from", c.Name)
		return signal.Errorf(signal.ErrRefused, "%s needs the scope %s, %s has %s", strings.TrimPrefix(method, "viscript."), need, c.Name, c.Scope)
	}
	if need == Read || method == "viscript.input" || method == "viscript.resize" || method == "viscript.reload" && p.DryRun {
		return nil
	}
	what := strings.TrimSpace(fmt.Sprintf("%s %s%s", strings.TrimPrefix(method, "viscript."), p.App, p.ID))
	s.log.Info("command", "type", what, "from", c.Name)
	return s.do(ctx, func() error {
		s.event(nil, "command", what+", by "+c.Name)
		return nil
	})
}

// startRemote serves operators on other boxes by what config.yaml says now. Only for the loop, as is the start.
func (s *Supervisor) startRemote() {
	if s.endRemote != nil {
		s.endRemote()
		s.endRemote = nil
	}
	r := s.file.Settings.Remote
	if s.c.Remote == nil || r.Empty() {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.endRemote = cancel
	before := s.remoteEnded
	ended := make(chan struct{})
	s.remoteEnded = ended
	s.wg.Go(func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		if err := s.c.Remote(ctx, s, r); err != nil && ctx.Err() == nil {
			s.log.Error("operators on other boxes are not served", "err", err)
		}
	})
}
