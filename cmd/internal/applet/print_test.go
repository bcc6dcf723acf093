package applet

import (
	"strings"
	"testing"
)

// TestPrintedObeysNoTerminal: cells and errors hold what other boxes and programs said.
func TestPrintedObeysNoTerminal(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	e := &Env{Stdout: &out, Stderr: &errs}
	table := e.NewTable("NAME")
	table.Row("a\x1b]0;b\x07")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	e.Talk("node", "no: %s", "\x1b[2Jway\nout")
	if out.String() != "NAME\na?]0;b?\n" || errs.String() != "node: no: ?[2Jway\nout\n" {
		t.Errorf("table %q, talk %q", out.String(), errs.String())
	}
}
