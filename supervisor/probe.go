package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// probeTimeout bounds what an app may take to answer ping and ru.
const probeTimeout = 5 * time.Second

// Pong answers ping.
type Pong struct {
	ID         uint64  `json:"id"`
	RTT        float64 `json:"rtt_ms"`
	AnsweredBy string  `json:"answered_by"` // "signal" or "process"
}

// Ping asks an app whether it is alive: by signal if it speaks it, else its process is looked at.
func (s *Supervisor) Ping(ctx context.Context, ref string) (Pong, error) {
	run, id, err := s.pick(ctx, ref)
	if err != nil {
		return Pong{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	begin := time.Now()
	p := Pong{ID: id, AnsweredBy: "signal"}
	err = s.hub.Call(ctx, id, "ping", struct{}{}, nil)
	if errors.Is(err, signal.ErrNotRunning) || errors.Is(err, signal.ErrUnknownMethod) || errors.Is(err, signal.ErrClosed) {
		p.AnsweredBy = "process"
		err = nil
		if u, known := run.Usage(); known && u.Processes == 0 {
			err = signal.Errorf(signal.ErrNotRunning, "%s has no process", ref)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = signal.Errorf(signal.ErrTimeout, "%s lives and does not answer (waited %v)", ref, probeTimeout)
	}
	p.RTT = float64(time.Since(begin).Microseconds()) / 1000
	return p, err
}

// pick returns what runs under ref and its id.
func (s *Supervisor) pick(ctx context.Context, ref string) (run running, id uint64, err error) {
	err = s.do(ctx, func() error {
		e, err := s.find(ref)
		if err != nil {
			return err
		}
		if e.run == nil {
			return signal.Errorf(signal.ErrNotRunning, "%s#%d is not running (%s)", e.app.Name, e.id, e.state)
		}
		run, id = e.run, e.id
		return nil
	})
	return run, id, err
}

// Resources answers ru; null is unknown here.
type Resources struct {
	ID         uint64          `json:"id"`
	PID        int             `json:"pid"`
	Processes  *int            `json:"processes"`
	Threads    *int            `json:"threads"`
	CPUUser    *float64        `json:"cpu_user_s"`
	CPUSys     *float64        `json:"cpu_sys_s"`
	CPUPercent *float64        `json:"cpu_percent"`
	RSS        *uint64         `json:"rss_bytes"`
	PSS        *uint64         `json:"pss_bytes"`
	FDs        *int            `json:"fds"`
	IORead     *uint64         `json:"io_read_bytes"`
	IOWrite    *uint64         `json:"io_write_bytes"`
	NetRx      *uint64         `json:"net_rx_bytes"` // in the mesh; elsewhere the kernel counts for no process
	NetTx      *uint64         `json:"net_tx_bytes"`
	Uptime     float64         `json:"uptime_s"`
	Source     string          `json:"source"`
	App        json.RawMessage `json:"app"` // what the app says of itself
}

// Usage measures the whole process tree of an app.
func (s *Supervisor) Usage(ctx context.Context, ref string) (Resources, error) {
	var started time.Time
	var run running
	out := Resources{App: json.RawMessage("null")}
	err := s.do(ctx, func() error {
		e, err := s.find(ref)
		if err != nil {
			return err
		}
		if e.run == nil {
			return signal.Errorf(signal.ErrNotRunning, "%s#%d is not running (%s)", e.app.Name, e.id, e.state)
		}
		run, started, out.ID = e.run, e.started, e.id
		return nil
	})
	if err != nil {
		return out, err
	}
	u, known := run.Usage()
	wall := s.c.now().Sub(started)
	out.PID, out.Source, out.Uptime = run.ID().PID, u.Source, float64(wall.Milliseconds())/1000
	if known {
		out.measure(u, wall)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if s.c.Mesh != nil && known { // what runs inside viscript can't be told from the rest of it
		if rx, tx, ok := s.c.Mesh(ctx, run.Has); ok {
			out.NetRx, out.NetTx = &rx, &tx
			out.Source += "+mesh"
		}
	}
	var said json.RawMessage
	if s.hub.Call(ctx, out.ID, "ru", struct{}{}, &said) == nil && len(said) > 0 {
		out.App = said
	}
	return out, nil
}

// CPU is what the tree has used, in seconds; nil if unknown.
func (r *Resources) CPU() *float64 {
	if r.CPUUser == nil || r.CPUSys == nil {
		return nil
	}
	sum := *r.CPUUser + *r.CPUSys
	return &sum
}

// Top is an app with what it uses, as the kernel tells; the app itself is not asked.
type Top struct {
	Item
	Usage Resources `json:"usage"`
}

// Top measures all apps that run, wait or have failed, by id.
func (s *Supervisor) Top(ctx context.Context) ([]Top, error) {
	list := []Top{}
	runs := []running{}
	err := s.do(ctx, func() error {
		for _, e := range slices.Backward(s.entries()) {
			if e.state != Exited {
				list, runs = append(list, Top{Item: e.item()}), append(runs, e.run)
			}
		}
		return nil
	})
	for i, m := range usages(runs) { // outside the loop: it reads /proc
		t, run := &list[i], runs[i]
		t.Usage = Resources{ID: t.ID, App: json.RawMessage("null")}
		if run == nil {
			continue
		}
		u, known := m.Usage, m.known
		wall := s.c.now().Sub(*t.Started)
		t.Usage.PID, t.Usage.Source, t.Usage.Uptime = run.ID().PID, u.Source, float64(wall.Milliseconds())/1000
		if known {
			t.Usage.measure(u, wall)
			t.RSS, t.CPUPercent = t.Usage.RSS, t.Usage.CPUPercent
		}
	}
	return list, err
}

func (r *Resources) measure(u proc.Usage, wall time.Duration) {
	user, sys, pct := u.CPUUser.Seconds(), u.CPUSys.Seconds(), percent(u.CPUUser+u.CPUSys, wall)
	if u.Processes > 0 {
		r.Processes, r.Threads = &u.Processes, &u.Threads
	}
	r.CPUUser, r.CPUSys, r.CPUPercent = &user, &sys, &pct
	r.RSS, r.PSS, r.FDs, r.IORead, r.IOWrite = u.RSS, u.PSS, u.FDs, u.IORead, u.IOWrite
}
