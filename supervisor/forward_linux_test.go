package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestForward: lines go to a file under a cap and to syslog, each once, also over an end of viscript that was none of
// the app's.
func TestForward(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  many: {path: /bin/sh, default_args: [-c, 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo "line $i"; done; echo ERROR at the end'], log: {rate: 0, file: logs/many.log, file_bytes: 20000, syslog: DIR/log.sock}, log_bytes: 1000000}
`)
	b, err := os.ReadFile(w.config.File)
	if err != nil {
		t.Fatal(err)
	}
	w.write(strings.ReplaceAll(string(b), "DIR", w.dir))
	s, stop := w.run()
	s.mustStart(t, "many")
	s.reaches(t, "many", Exited, "")
	file := filepath.Join(w.config.StateDir, "logs", "many.log")
	eventually(t, func() error {
		old, _ := os.ReadFile(file + ".1")
		b, err := os.ReadFile(file)
		b = append(old, b...)
		if err == nil && !strings.Contains(string(b), "many#1 stdout: ERROR at the end\n") {
			err = fmt.Errorf("%d bytes", len(b))
		}
		return err
	})
	total := int64(0)
	list, _ := filepath.Glob(file + "*")
	for _, p := range list {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > 20000 || len(list) != filePieces {
		t.Errorf("%d bytes in %v", total, list)
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(w.dir, "log.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetReadDeadline(time.Now().Add(30 * time.Second)) // syslog came late: nothing is lost
	buf := make([]byte, 3000)
	for i := 1; i <= 2001; i++ {
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		want, pri := fmt.Sprintf("many[1]: line %d", i), "<30>"
		if i == 2001 {
			want, pri = "many[1]: ERROR at the end", "<27>"
		}
		if got := string(buf[:n]); !strings.HasSuffix(got, want) || !strings.HasPrefix(got, pri) {
			t.Fatalf("%q, want %s … %s", got, pri, want)
		}
	}
	stop()
}
