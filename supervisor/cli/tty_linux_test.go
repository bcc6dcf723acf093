package cli

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

const appsTTY = `apps:
  sh: {path: /bin/sh, tty: true, env: {PS1: "prompt> "}}
`

// TestTerminalOfApp: a shell under viscript has a terminal with job control, keys reach it as they are typed, it follows
// the size, the key that detaches is one's choice, and who comes back sees what stood there last.
func TestTerminalOfApp(t *testing.T) {
	t.Parallel()
	dir := daemon(t, appsTTY)
	person, tty := terminal(t)
	var s screen
	go s.follow(person)
	ended := make(chan int, 1)
	go func() {
		ended <- Main(context.Background(), Config{RunDir: dir, Stdin: tty, Stdout: tty, Stderr: tty}, nil)
	}()
	typed := func(text string) { person.WriteString(text) }
	s.shows(t, "viscript> ")
	typed("start -a sh\r")
	s.shows(t, "prompt> ")
	typed("tty; stty size\r")
	s.shows(t, "/dev/pts/")
	s.shows(t, "40 200\r\n")
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 90}); err != nil {
		t.Fatal(err)
	}
	typed("until [ \"$(stty size)\" = '25 90' ]; do sleep 0.05; done; echo res''ized\r")
	s.shows(t, "resized\r\n")
	typed("sleep 1000\r\x03") // Ctrl-C ends what runs in it, not the shell
	s.shows(t, "^C")
	typed("echo still he''re\r")
	s.shows(t, "still here\r\n")
	typed("\x1a")
	s.shows(t, "detached from 1")
	s.shows(t, "viscript> ")
	typed("attach --detach-key ^] sh\r")
	s.shows(t, "still here\r\n") // from before
	typed("echo aga''in\r")
	s.shows(t, "again\r\n")
	typed("\x1d")
	s.shows(t, "detached from 1")
	s.shows(t, "viscript> ")
	typed("attach sh\r")
	s.shows(t, "again\r\n")
	typed("exit 7\r")
	s.shows(t, "sh#1 failed: exit status 7")
	s.shows(t, "viscript> ")
	typed("exit\r")
	if status := <-ended; status != 7 { // of the last line, as of any shell
		t.Errorf("exit status %d", status)
	}
	for _, key := range []string{"Z", "^", "^[", "^1", "^ZZ"} {
		if _, ok := controlKey(key); ok {
			t.Errorf("%q is taken for a key", key)
		}
	}
}
