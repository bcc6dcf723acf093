package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"skywire/supervisor/config"
)

const (
	// forwardRetry is how long lines wait when they could not be handed on: a disk not yet there, no syslog yet. The
	// ring holds them meanwhile.
	forwardRetry = 5 * time.Second
	// forwardMost is how many lines are handed on at once.
	forwardMost = 500
	// filePieces is in how many pieces a log file's bytes are kept: one is written, the others are older.
	filePieces = 4
	// syslogTimeout bounds one write to syslog.
	syslogTimeout = 2 * time.Second
	// maxSyslog cuts a line for syslog: RFC 3164 has 1024 bytes for all, and logd and journald take more.
	maxSyslog = 2000
)

// target is where lines are handed on to. write returns how many it took, and may be called again after an error.
type target interface {
	write(who forwarded, lines []Line) (int, error)
	close()
}

// forwarded names the app of the lines.
type forwarded struct {
	app string
	id  uint64
}

// forward hands the lines of an app on as its log section says, from where an earlier viscript was. A kill may repeat
// what was handed on last, and loses nothing that the ring still has. Only for the loop.
func (s *Supervisor) forward(e *entry) {
	if e.endForward != nil {
		e.endForward()
		e.endForward = nil
	}
	targets := map[string]target{}
	if path := e.app.Log.File; path != "" {
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.c.StateDir, path)
		}
		targets["file"] = &sharedFile{s.logFile(path), int64(e.app.Log.FileBytes)}
	}
	if to := e.app.Log.Syslog; to != "" {
		targets["syslog"] = &syslog{to: to, now: s.c.now}
	}
	if len(targets) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	e.endForward = cancel
	who, ring := forwarded{e.app.Name, e.id}, e.out.ring
	for name, t := range targets {
		place := ""
		if s.ram {
			place = s.pipePath(e.id, name) + cursorSuffix
		}
		s.wg.Go(func() {
			defer t.close()
			s.handOn(ctx, who, ring, t, place)
		})
	}
}

const cursorSuffix = ".cursor"

// logFile returns the file at path, one for all who write there.
func (s *Supervisor) logFile(path string) *logFile {
	if s.logFiles[path] == nil {
		s.logFiles[path] = &logFile{path: path}
	}
	return s.logFiles[path]
}

// handOn runs until ctx ends, and then hands on what is still there.
func (s *Supervisor) handOn(ctx context.Context, who forwarded, ring *Ring, t target, place string) {
	cursor := uint64(1)
	if b, err := os.ReadFile(place); err == nil && place != "" {
		if n, err := strconv.ParseUint(string(b), 10, 64); err == nil {
			cursor = n
		}
	}
	told := false
	for ended := false; !ended; {
		if _, _, err := ring.After(ctx, cursor); err != nil {
			ended = true
		}
		for {
			lines, _ := ring.From(cursor, forwardMost)
			if len(lines) == 0 {
				break
			}
			if gap := lines[0].Seq - cursor; lines[0].Seq > cursor && cursor > 1 {
				text := fmt.Sprintf("%d lines lost, they came faster than they could be handed on", gap)
				lines = append([]Line{{Seq: lines[0].Seq - 1, Time: lines[0].Time, Stream: streamNote, Text: text}}, lines...)
			}
			n, err := t.write(who, lines)
			if n > 0 {
				cursor = lines[n-1].Seq + 1
			}
			if n > 0 && place != "" {
				os.WriteFile(place, strconv.AppendUint(nil, cursor, 10), 0o600)
			}
			if err != nil {
				if !told {
					s.log.Warn("lines not handed on, they wait in the ring", "id", who.id, "app", who.app, "err", err)
				}
				told = true
				if ended || !sleep(ctx, forwardRetry) {
					return
				}
				continue
			}
			told = false
		}
	}
}

// logFile is a file in pieces: PATH is written, PATH.1 is what was before, and so on.
type logFile struct {
	path string

	mu   sync.Mutex // guards the fields below, over the writes too: one writer
	f    *os.File
	size int64
}

// sharedFile is a logFile with what one app allows it to be.
type sharedFile struct {
	*logFile
	limit int64
}

func (l *sharedFile) write(who forwarded, lines []Line) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b []byte
	for i, line := range lines {
		if l.f == nil {
			if err := l.openLocked(); err != nil {
				return n, err
			}
		}
		at := len(b)
		b = line.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
		b = fmt.Appendf(b, " %s#%d %s: %s\n", who.app, who.id, line.Stream, line.Text)
		if l.size+int64(len(b)) <= l.limit/filePieces || l.size+int64(at) == 0 {
			continue
		}
		if err := l.putLocked(b[:at]); err != nil {
			return n, err
		}
		n, b = i, append(b[:0], b[at:]...)
		l.f.Close()
		l.f = nil
		for i := filePieces - 2; i >= 0; i-- {
			os.Rename(l.piece(i), l.piece(i+1))
		}
		if err := l.openLocked(); err != nil {
			return n, err
		}
	}
	if err := l.putLocked(b); err != nil {
		return n, err
	}
	return len(lines), nil
}

func (l *logFile) openLocked() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, st.Size()
	return nil
}

// putLocked writes all of b or nothing: what a full disk has taken of it is given back.
func (l *logFile) putLocked(b []byte) error {
	_, err := l.f.Write(b)
	if err == nil {
		l.size += int64(len(b))
		return nil
	}
	l.f.Truncate(l.size)
	l.f.Close()
	l.f = nil
	return err
}

func (l *logFile) piece(i int) string {
	if i == 0 {
		return l.path
	}
	return l.path + "." + strconv.Itoa(i)
}

// close leaves the file to the others; it is opened again when needed.
func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// syslog sends to the log of the system (syslogd, journald, logd of OpenWrt) or over UDP, as RFC 3164.
type syslog struct {
	to   string // config.LocalSyslog or host:port
	now  func() time.Time
	conn net.Conn
}

func (l *syslog) write(who forwarded, lines []Line) (int, error) {
	if l.conn == nil {
		d := net.Dialer{Timeout: syslogTimeout}
		network, address := "udp", l.to
		if l.to == config.LocalSyslog {
			network, address = "unixgram", "/dev/log"
		} else if strings.HasPrefix(l.to, "/") {
			network = "unixgram"
		}
		c, err := d.Dial(network, address)
		if err != nil {
			return 0, err
		}
		l.conn = c
	}
	for i, line := range lines {
		// facility daemon; severities of the four levels
		pri := 3<<3 | [...]int{7, 6, 4, 3}[LevelOf(line.Text)]
		text := line.Text[:min(len(line.Text), maxSyslog)]
		if line.Stream == streamNote {
			text = "viscript: " + text
		}
		l.conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
		m := fmt.Sprintf("<%d>%s %s[%d]: %s", pri, line.Time.Local().Format(time.Stamp), who.app, who.id, text)
		if _, err := l.conn.Write([]byte(m)); err != nil {
			l.close()
			return i, fmt.Errorf("syslog %s: %w", l.to, err)
		}
	}
	return len(lines), nil
}

func (l *syslog) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}
