package applet

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestPaint(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{
			"states", "ID  NAME    STATE    PID\n1   failed  running  7\n2   ü       failed   -\n3   c       exited   -\n",
			bold + "ID  NAME    STATE    PID" + plain + "\n1   failed  " + green + "running" + plain + "  7\n2   ü       " + red + "failed" + plain + "   -\n3   c       exited   -\n",
		},
		{
			"losses", "A  LOSS   X\na  0.0 %  1\nb  2.5 %  1\nc  40 %   1\n",
			bold + "A  LOSS   X" + plain + "\na  0.0 %  1\nb  " + yellow + "2.5 %" + plain + "  1\nc  " + red + "40 %" + plain + "   1\n",
		},
		{
			"two columns, a line above", "12:00  2 apps\nSTATE  LOSS\nup     50%\n",
			"12:00  2 apps\n" + bold + "STATE  LOSS" + plain + "\n" + green + "up" + plain + "     " + red + "50%" + plain + "\n",
		},
		{"no such column", "A  B\nup  failed\n", "A  B\nup  failed\n"},
		{"short row", "A  STATE\nx\n\n", bold + "A  STATE" + plain + "\nx\n\n"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Paint(tt.text); got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
}

// TestColours: what is no terminal is never coloured, nor is a terminal whose owner does not want it.
func TestColours(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	e := &Env{Stdout: &b}
	table := e.NewTable("NAME", "STATE")
	table.Row("a", "failed")
	if err := table.Flush(); err != nil || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q, %v", b.String(), err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if (&Env{Stdout: w}).Colours() {
		t.Error("a pipe is coloured")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	defer tty.Close()
	for environ, want := range map[string]bool{"TERM=xterm": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		if got := (&Env{Stdout: tty, Environ: []string{environ}}).Colours(); got != want {
			t.Errorf("%s: %v", environ, got)
		}
	}
}
