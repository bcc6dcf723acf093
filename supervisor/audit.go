package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"skywire/signal"
)

// trailBytes is how much of who asked for what is kept in RAM.
const trailBytes = 64 << 10

// auditFileBytes is what settings.audit_file may take with its older pieces.
const auditFileBytes = 1 << 20

// Asked is one line of the audit: a command that changes something, or that was refused.
type Asked struct {
	Seq    uint64    `json:"seq,omitempty"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who"` // a key, or a user of this box
	Scope  string    `json:"scope"`
	Method string    `json:"method"`
	What   string    `json:"what,omitempty"` // the app or id
	Error  string    `json:"error,omitempty"`
}

// audit notes what came of a command. What is only looked at is not noted, nor each key typed into an attached app.
func (s *Supervisor) audit(c Caller, method string, p params, err error) {
	looks := scopeOf(method) == Read || method == "viscript.input" || method == "viscript.resize" || method == "viscript.audit" || p.DryRun
	if looks && !errors.Is(err, signal.ErrRefused) {
		return
	}
	a := Asked{
		Time: s.c.now().UTC(), Who: c.Name, Scope: c.Scope.String(), Method: strings.TrimPrefix(method, "viscript."),
		What: p.App + p.ID,
	}
	if err != nil {
		a.Error = err.Error()
	}
	if b, err := json.Marshal(a); err == nil {
		s.trail.Add(a.Time, "audit", string(b))
	}
}

// keepTrail writes the audit into the file that settings.audit_file names, too. Only for the loop, as is the start.
func (s *Supervisor) keepTrail() {
	path := s.file.Settings.AuditFile
	if path == s.trailFile {
		return
	}
	if s.endTrail != nil {
		s.endTrail()
		s.endTrail = nil
	}
	if s.trailFile = path; path == "" {
		return
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.c.StateDir, path)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.endTrail = cancel
	to := &sharedFile{s.logFile(path), auditFileBytes}
	place := ""
	if s.ram {
		place = filepath.Join(s.c.RunDir, "log", "audit") + cursorSuffix
	}
	s.wg.Go(func() {
		defer to.close()
		s.handOn(ctx, forwarded{app: "audit"}, s.trail, to, place)
	})
}
