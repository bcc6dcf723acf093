package applet

import (
	"context"
	"fmt"
	"io"
	"strings"

	"skywire/signal"
)

// Env is the world of one run of an applet. Args are the words after the applet's name. Environ has the form of
// os.Environ. An applet uses nothing else of the process.
type Env struct {
	Args    []string
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	// Processors sets on how many processors Go code runs, unless the environment says, and returns the number; 0 only
	// asks. It belongs to the process; nil: nobody here may.
	Processors func(n int) int
}

// Func runs an applet, or one verb of it, and returns its exit status. It returns after all it started has ended;
// a cancelled ctx asks it to end, and ending for that reason is success.
type Func func(ctx context.Context, e *Env) int

// Applet is one entry of the binary's table.
type Applet struct {
	Name    string
	Summary string // one line, for lists
	Usage   string // the synopsis, one line a form, without "skywire"
	Run     Func
}

// With returns a copy of e with other arguments.
func (e *Env) With(args []string) *Env {
	c := *e
	c.Args = args
	return &c
}

// Getenv returns the last value of the named variable in Environ, or "".
func (e *Env) Getenv(name string) string {
	for i := len(e.Environ) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(e.Environ[i], "="); ok && k == name {
			return v
		}
	}
	return ""
}

// Talk writes one line "NAME: text" to Stderr: how an applet talks to people. The text may hold what another box said.
func (e *Env) Talk(name, format string, args ...any) {
	fmt.Fprintf(e.Stderr, "%s: %s\n", name, signal.Printable(fmt.Sprintf(format, args...), "\n\t"))
}

// Fail reports err as "NAME: text" and returns the exit status that Code gives it.
func (e *Env) Fail(name string, err error) int {
	if err == nil {
		return OK
	}
	e.Talk(name, "%s", err)
	return Code(err)
}
