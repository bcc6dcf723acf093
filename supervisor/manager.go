package supervisor

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// manager is what runs viscript and wants to know how it is: systemd with Type=notify, or whoever speaks as it does. Nobody
// is told anything unless the environment names a socket.
type manager struct {
	log   *slog.Logger
	path  string
	every time.Duration // how often a sign of life is due; 0: never
	said  string        // the last status; only for the loop
}

func newManager(environ []string, log *slog.Logger) *manager {
	m := &manager{log: log}
	who := ""
	for _, kv := range environ {
		switch name, v, _ := strings.Cut(kv, "="); name {
		case "NOTIFY_SOCKET":
			m.path = v // a leading @ is an abstract name
		case "WATCHDOG_USEC":
			n, _ := strconv.ParseUint(v, 10, 40)
			m.every = time.Duration(n) * time.Microsecond / 2 // as systemd advises
		case "WATCHDOG_PID":
			who = v
		}
	}
	if m.path == "" || who != "" && who != strconv.Itoa(os.Getpid()) {
		m.every = 0
	}
	return m
}

// tell sends one message; a manager that does not take it costs a second and changes nothing.
func (m *manager) tell(state string) {
	if err := signal.Notify(m.path, state); err != nil {
		m.log.Warn("nobody told that viscript runs", "err", err)
	}
}

// reloading brackets a reload, which is told with the time on the clock that systemd compares it by.
func (m *manager) reloading() (done func()) {
	if m.path == "" {
		return func() {}
	}
	m.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", proc.Monotonic().Microseconds()))
	return func() { m.tell("READY=1") }
}

// beats tells when a sign of life is due. It comes from the loop: one that hangs gives none.
func (m *manager) beats() (<-chan time.Time, func()) {
	if m.every <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(m.every)
	return t.C, t.Stop
}

// status tells the one line of systemctl status when it changes. Only for the loop.
func (s *Supervisor) tellStatus() {
	if s.manager.path == "" {
		return
	}
	run, failed := 0, 0
	for _, e := range s.table {
		if e.run != nil {
			run++
		}
		if e.state == Failed {
			failed++
		}
	}
	text := fmt.Sprintf("STATUS=%d apps run, %d failed", run, failed)
	if text != s.manager.said {
		s.manager.said = text
		s.manager.tell(text)
	}
}

// tellStopping says how long the end may take: the apps end one after the other where they depend on each other.
func (s *Supervisor) tellStopping() {
	longest := 10 * time.Second
	for _, e := range s.table {
		if e.active() {
			longest += time.Duration(e.app.StopTimeout)
		}
	}
	s.manager.tell(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", longest.Microseconds()))
}
