package proxy

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// probeByte is the whole header of a stream that asks an exit for its load. It is no version of Header, so an exit that
// does not know it refuses with socks.Failed.
const probeByte = 0

// ProbeHeader opens a stream to Service that an exit answers with its Load in place of a connection, or with the reason
// why it would not have this client: one round trip tells distance, access and load.
func ProbeHeader() []byte { return []byte{probeByte} }

func isProbe(header []byte) bool { return len(header) == 1 && header[0] == probeByte }

// Load is how busy an exit is.
type Load struct {
	Percent     int // 0 to 100: the worst of its limit on connections and its processors
	Connections int
}

// loadVerdict is the answer to a probe.
func loadVerdict(l Load) *Verdict {
	return &Verdict{verdictLoad, fmt.Sprintf("load=%d connections=%d", l.Percent, l.Connections)}
}

// loadOf reads a verdict. Not ok: it is none of a probe. Words that are not known are left to later versions.
func loadOf(v *Verdict) (l Load, ok bool) {
	if v == nil || v.Code != verdictLoad {
		return Load{}, false
	}
	for _, w := range strings.Fields(v.Text) {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "load":
			l.Percent, ok = min(n, 100), true
		case "connections":
			l.Connections = n
		}
	}
	return l, ok
}

// loadNow puts the use of connections and processors into one figure.
func loadNow(connections, limit int) Load {
	l := Load{Connections: connections, Percent: connections * 100 / max(limit, 1)}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil { // elsewhere the connections alone speak
		l.Percent = max(l.Percent, loadAverage(string(b), runtime.NumCPU()))
	}
	l.Percent = min(l.Percent, 100)
	return l
}

// loadAverage reads the first figure of /proc/loadavg: tasks that run or wait to, over a minute. As many as there are
// processors count as half busy, since an exit's work waits little there.
func loadAverage(s string, cpus int) int {
	first, _, _ := strings.Cut(s, " ")
	whole, part, _ := strings.Cut(first, ".")
	n, err := strconv.Atoi(whole + part) // hundredths
	if err != nil || n < 0 || len(part) != 2 {
		return 0
	}
	return min(n/(2*max(cpus, 1)), 100)
}
