package cli

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTablesOnTerminals: tables of a terminal are coloured and no wider than it is, in the shell and out of it; those of a
// pipe are as they were.
func TestTablesOnTerminals(t *testing.T) {
	t.Parallel()
	dir := daemon(t, "apps:\n  waits: {path: /bin/sleep, default_args: ['1000']}\n")
	person, tty := terminal(t)
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 40}); err != nil {
		t.Fatal(err)
	}
	var s screen
	go s.follow(person)
	paint := func(text string) string { return strings.ReplaceAll(text, "running", "<running>") }
	c := Config{RunDir: dir, Stdin: tty, Stdout: tty, Stderr: tty, Paint: paint}
	if code := Main(context.Background(), c, []string{"start", "waits"}); code != 0 {
		t.Fatal(code)
	}
	if code := Main(context.Background(), c, []string{"ps"}); code != 0 {
		t.Fatal(code)
	}
	s.shows(t, "<running>")
	s.shows(t, "…\r\n")
	ended := make(chan int, 1)
	go func() { ended <- Main(context.Background(), c, nil) }()
	s.shows(t, "viscript> ")
	person.WriteString("la\r")
	s.shows(t, "<running>")
	person.WriteString("exit\r")
	<-ended
	var out, errs strings.Builder
	if code := Main(context.Background(), Config{RunDir: dir, Stdout: &out, Stderr: &errs}, []string{"ps"}); code != 0 ||
		!strings.Contains(out.String(), "RSS") || strings.Contains(out.String(), "…") {
		t.Errorf("status %d: %s%s", code, out.String(), errs.String())
	}
}
