package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"skywire/supervisor/proc"
)

// heardBy is the socket of a manager such as systemd.
type heardBy struct {
	t *testing.T
	c *net.UnixConn
}

func newHeardBy(t *testing.T, path string) *heardBy {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &heardBy{t, c}
}

// until returns the next message that begins so; others are returned joined, for those who care.
func (h *heardBy) until(prefix string) (message, before string) {
	h.t.Helper()
	h.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 500)
	for {
		n, err := h.c.Read(buf)
		if err != nil {
			h.t.Fatalf("%s was not said, only %q: %v", prefix, before, err)
		}
		if message = string(buf[:n]); strings.HasPrefix(message, prefix) {
			return message, before
		}
		before += message + "|"
	}
}

// TestNotifyManager: viscript itself says when it serves, what runs, that it reads its file again, that it lives and that
// it ends, as systemd with Type=notify wants, to a path and to an abstract name; its apps are not told of that socket.
func TestNotifyManager(t *testing.T) {
	t.Parallel()
	for _, abstract := range []bool{false, true} {
		t.Run(fmt.Sprintf("abstract %v", abstract), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shells)
			path := filepath.Join(w.dir, "manager")
			if abstract {
				path = "@" + path
			}
			h := newHeardBy(t, path)
			w.config.Environ = append(w.config.Environ, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000", "WATCHDOG_PID="+strconv.Itoa(os.Getpid()))
			hup := make(chan os.Signal, 1)
			w.config.ReloadAsked = hup
			s, stop := w.run()
			ready, before := h.until("READY=1")
			if said := parseNotify(ready); said.main != os.Getpid() || strings.Contains(before, "READY") {
				t.Errorf("%q after %q", ready, before)
			}
			h.until("STATUS=0 apps run, 0 failed")
			s.mustStart(t, "sh", "-c", `echo "socket $NOTIFY_SOCKET$WATCHDOG_USEC$WATCHDOG_PID"; exec sleep 1000`)
			h.until("STATUS=1 apps run, 0 failed")
			s.says(t, "sh", "socket "+w.config.RunDir+"/notify/1")
			if got := s.text(t, "sh"); got != "socket "+w.config.RunDir+"/notify/1" {
				t.Errorf("an app finds %q", got)
			}
			s.mustStart(t, "sh", "-c", "exit 1")
			h.until("STATUS=1 apps run, 1 failed")
			h.until("WATCHDOG=1")
			h.until("WATCHDOG=1")
			h.reloads(w, hup)
			stop()
			last, _ := h.until("STOPPING=1")
			// 10 s, and 0.3 s of stop_timeout
			if d := parseNotify(last).extend; d != 10300*time.Millisecond {
				t.Errorf("%q", last)
			}
		})
	}
}

// reloads asks twice, with a file that is right and one that is not: both are bracketed, or systemd would wait for the end.
func (h *heardBy) reloads(w *world, hup chan<- os.Signal) {
	h.t.Helper()
	for _, text := range []string{shells + "  new: {path: /bin/true}\n", "apps: {sh: {pth: x}}\n"} {
		w.write(text)
		least := proc.Monotonic()
		hup <- os.Interrupt
		begin, _ := h.until("RELOADING=1\nMONOTONIC_USEC=")
		_, number, _ := strings.Cut(begin, "USEC=")
		if n, err := strconv.ParseInt(number, 10, 64); err != nil || n < least.Microseconds() || n > proc.Monotonic().Microseconds() {
			h.t.Errorf("%q: %v, between %v and %v", begin, err, least, proc.Monotonic())
		}
		h.until("READY=1")
	}
}

// TestManagerWatchdog: signs of life are for the process that is named, and only if somebody listens.
func TestManagerWatchdog(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		environ []string
		every   time.Duration
	}{
		"nobody":          {[]string{"WATCHDOG_USEC=1000000"}, 0},
		"no watchdog":     {[]string{"NOTIFY_SOCKET=/x"}, 0},
		"anybody":         {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1000000"}, 500 * time.Millisecond},
		"us":              {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1000000", "WATCHDOG_PID=" + strconv.Itoa(os.Getpid())}, 500 * time.Millisecond},
		"somebody else":   {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1000000", "WATCHDOG_PID=1"}, 0},
		"no number":       {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=soon"}, 0},
		"a negative one":  {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=-5"}, 0},
		"one of no end":   {[]string{"NOTIFY_SOCKET=/x", "WATCHDOG_USEC=99999999999999999999"}, (1<<40 - 1) / 2 * time.Microsecond},
		"nothing at all":  {nil, 0},
		"an empty socket": {[]string{"NOTIFY_SOCKET=", "WATCHDOG_USEC=1000000"}, 0},
	}
	for name, tt := range tests {
		if m := newManager(tt.environ, nil); m.every.Truncate(time.Microsecond) != tt.every {
			t.Errorf("%s: every %v, want %v", name, m.every, tt.every)
		}
	}
}
