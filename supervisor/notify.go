package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxNotify bounds one message of sd_notify; systemd's own limit is 4 KiB.
const maxNotify = 4096

const readySuffix = "ready"

func (s *Supervisor) notifyPath(id uint64) string {
	return filepath.Join(s.c.RunDir, "notify", strconv.FormatUint(id, 10))
}

// said is what an app told by sd_notify, by its readiness descriptor or by signal; zero fields were not said.
type said struct {
	ready    bool
	stopping bool
	beat     bool          // it lives
	silence  bool          // the watchdog shall strike now
	watchdog time.Duration // how long it may be silent
	extend   time.Duration // how much longer it needs to start or stop
	main     int           // the process that stays
	status   *string
}

// parseNotify reads a message of sd_notify: lines of NAME=VALUE; names that nobody knows are left out.
func parseNotify(text string) (s said) {
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		micros := func() time.Duration {
			n, err := strconv.ParseUint(value, 10, 40)
			if err != nil {
				return 0
			}
			return time.Duration(n) * time.Microsecond
		}
		switch name {
		case "READY":
			s.ready = value == "1"
		case "STOPPING":
			s.stopping = value == "1"
		case "WATCHDOG":
			s.beat, s.silence = value == "1", value == "trigger"
		case "WATCHDOG_USEC":
			s.watchdog = micros()
		case "EXTEND_TIMEOUT_USEC":
			s.extend = micros()
		case "MAINPID":
			s.main, _ = strconv.Atoi(value)
		case "RELOADING":
			if value == "1" {
				text := "reloading"
				s.status = &text
			}
		case "STATUS":
			s.status = &value
		}
	}
	return s
}

// listenNotify opens the socket of sd_notify of one app, for its user alone. nil: not on this system.
func (s *Supervisor) listenNotify(id uint64, uid int) *net.UnixConn {
	path := s.notifyPath(id)
	if os.MkdirAll(filepath.Dir(path), 0o711) != nil { // an app of another user has to get there
		return nil
	}
	os.Remove(path)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil
	}
	if uid >= 0 {
		err = os.Chown(path, uid, -1)
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		c.Close()
		return nil
	}
	return c
}

// hear takes what the app says until the socket is closed. Descriptors that come along are not taken, so the kernel closes
// them: that is what a BARRIER waits for, and nothing is kept for FDSTORE.
func hear(c *net.UnixConn, tell func(said)) {
	buf := make([]byte, maxNotify)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		tell(parseNotify(string(buf[:n])))
	}
}

// awaitNewline tells that the app is ready when a line has come through its readiness descriptor, or the end of it.
func awaitNewline(f *os.File, tell func(said)) {
	buf := make([]byte, 64)
	for {
		n, err := f.Read(buf)
		if strings.ContainsRune(string(buf[:n]), '\n') {
			tell(said{ready: true})
			return
		}
		if err != nil {
			return
		}
	}
}
