// Package cli is viscript's verbs: what a person or a script says to a running viscript, in one command or in the
// interactive shell; both run the same table.
//
// It does not start the daemon and holds no state of it: every verb is one or a few calls over the control socket.
// Rules: data on stdout, talk on stderr as "viscript: text"; words are passed on as they were typed, case and quoting
// kept; a verb returns an error and Main alone turns it into an exit status (supervisor's names: 2 usage, 3 not
// running, 4 no such app, 5 refused, else 1).
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"skywire/signal"
	"skywire/supervisor"
	"skywire/supervisor/config"
)

// callTimeout bounds calls that have no reason to wait.
const callTimeout = 15 * time.Second

// Config is the world of one run.
type Config struct {
	RunDir   string // where viscript.sock lies
	File     string // config.yaml, for config check
	Sections []string
	// Check looks into the sections that applets own; nil: nobody does.
	Check func(f *config.File) error
	// Schema describes config.yaml for editors; nil: nobody does.
	Schema func() any
	// Dial connects to the viscript of another box; nil: there are no others. Nodes says which boxes a word names.
	Dial  func(ctx context.Context, node string) (io.ReadWriteCloser, error)
	Nodes func(ctx context.Context, word string) ([]Box, error)
	// Paint colours a table for a terminal; nil: Stdout is none, or nobody wants colours.
	Paint  func(table string) string
	JSON   bool
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Box is one that a word of -n names.
type Box struct {
	Word string // what Dial takes
	Name string // what people call it; "": Word
}

// Verb is one word of the table, for help and completion.
type Verb struct {
	Name    string
	Aliases []string
	Args    string
	Summary string

	shell bool // only in the shell
	local bool // does not ask viscript
	alone bool // of one box at a time
	run   func(ctx context.Context, s *session, f *flags) error
}

// InShell reports whether it is a word of the interactive shell alone.
func (v Verb) InShell() bool { return v.shell }

// Verbs is the table, in the order of help.
func Verbs() []Verb {
	return []Verb{
		{Name: "apps", Summary: "configured apps", run: apps},
		{Name: "help", Aliases: []string{"h", "?"}, Args: "[APP]", Summary: "the verbs, or the help text of an app", run: help},
		{Name: "start", Aliases: []string{"s"}, Args: "[-a] APP [ARGS…]", Summary: "start an app, print its id; -a attaches", run: start},
		{Name: "ps", Aliases: []string{"la", "list_apps"}, Args: "[-a] [-f]", Summary: "what runs; -a also what has ended, -f all columns", run: ps},
		{Name: "ping", Args: "ID…", Summary: "ask apps whether they are alive", run: ping},
		{Name: "ru", Aliases: []string{"res_usage"}, Args: "ID…", Summary: "resources of the whole process tree", run: ru},
		{Name: "top", Args: "[-d S] [-n N]", Summary: "resources of all apps, live in a terminal", run: top},
		{Name: "metrics", Summary: "status and resources as a text for Prometheus", run: metrics},
		{Name: "sd", Aliases: []string{"shutdown", "stop"}, Args: "ID…|--all [--timeout S]", Summary: "stop apps, return when nothing of them is left", run: stop},
		{Name: "restart", Args: "ID…", Summary: "stop and start again under the same id", run: restart},
		{Name: "attach", Args: "ID [--detach-key KEY]", Summary: "bind this terminal to an app; Ctrl-Z detaches", alone: true, run: attach},
		{Name: "logs", Args: "ID [-f] [-n N] [--since T] [--cursor N] [--level L]", Summary: "the last lines of an app's output", run: logs},
		{Name: "events", Args: "[-f] [-n N]", Summary: "what happened", run: events},
		{Name: "status", Summary: "viscript itself", run: status},
		{Name: "reload", Args: "[--dry-run]", Summary: "read config.yaml again, apply the difference", run: reload},
		{Name: "apply", Args: "FILE [--dry-run] [--confirm-within D] [--confirm-after D] [--wait D]", Summary: "make FILE the box's config.yaml; it returns by itself unless confirmed", run: apply},
		{Name: "confirm", Summary: "keep what apply changed", run: confirm},
		{Name: "rollback", Args: "[VERSION]", Summary: "the config.yaml of before again", run: rollback},
		{Name: "versions", Summary: "earlier texts of config.yaml", run: versions},
		{Name: "audit", Args: "[-f] [-n N]", Summary: "who changed what, and who was refused", run: audit},
		{Name: "web", Summary: "an address that opens the web page, once", run: webPage},
		{Name: "upgrade", Summary: "replace viscript by its new file; apps go on", run: upgrade},
		{Name: "config", Args: "check [FILE] | schema", Summary: "check config.yaml, needs no running viscript; its JSON schema for editors", local: true, run: check},
		{Name: "clear", Aliases: []string{"c", "cls"}, Summary: "clear the screen", shell: true, local: true, run: clearScreen},
		{Name: "exit", Aliases: []string{"quit", "q"}, Summary: "leave the shell; apps go on", shell: true, local: true, run: leave},
	}
}

// errLeave ends the shell.
var errLeave = errors.New("leave")

// usageError is a wrong command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }
func (e usageError) ExitCode() int { return 2 }

// exitError is the exit status of an attached app.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("the app ended with status %d", e.code) }
func (e exitError) ExitCode() int { return e.code }

// session is a connection to viscript and where to print.
type session struct {
	c       Config
	out     io.Writer
	errs    io.Writer
	json    bool
	conn    *signal.Conn
	dialing *sync.Mutex          // held while conn and notes are made
	notes   chan *signal.Request // notifications of the connection
	input   *input               // nil: there is none
	inShell bool
	node    string // of which box; "": this one
}

// Main runs one verb, or the shell (commands from stdin, line by line, if that is no terminal) without words, and
// returns the exit status.
func Main(ctx context.Context, c Config, words []string) int {
	s := &session{c: c, out: c.Stdout, errs: c.Stderr, json: c.JSON, dialing: new(sync.Mutex)}
	defer s.close()
	if len(words) == 2 && words[0] == "-n" {
		s.node, words = words[1], nil
	}
	if len(words) == 0 {
		return s.shell(ctx)
	}
	if c.Stdin != nil {
		s.input = newInput(c.Stdin)
	}
	return s.report(s.execute(ctx, words))
}

func (s *session) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

// report prints an error as talk and returns its exit status.
func (s *session) report(err error) int {
	var ee exitError
	var code interface{ ExitCode() int }
	switch {
	case err == nil, errors.Is(err, errLeave), errors.Is(err, context.Canceled):
		return 0
	case errors.As(err, &ee):
		return ee.code
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(s.errs, "viscript: %s\n", line)
	}
	if errors.As(err, &code) {
		return code.ExitCode()
	}
	return 1
}

// execute runs one verb.
func (s *session) execute(ctx context.Context, words []string) error {
	if words[0] == "-n" {
		if len(words) < 3 {
			return usageError{"usage: -n NODE|@tag:T|CLUSTER|@all VERB …"}
		}
		return s.elsewhere(ctx, words[1], words[2:])
	}
	v := find(words[0])
	if v == nil || v.shell && !s.inShell {
		var names []string
		for _, v := range Verbs() {
			if !v.shell || s.inShell {
				names = append(append(names, v.Name), v.Aliases...)
			}
		}
		return usageError{fmt.Sprintf("unknown command %q%s; see: help", words[0], config.Meant(words[0], names))}
	}
	f := &flags{FlagSet: flag.NewFlagSet(v.Name, flag.ContinueOnError), verb: v, s: s, args: words[1:], json: s.json}
	f.SetOutput(io.Discard)
	f.BoolVar(&f.json, "json", s.json, "print one JSON document")
	f.StringVar(&s.c.RunDir, "run", s.c.RunDir, "`DIR` of the sockets (SKYWIRE_RUN)")
	f.StringVar(&s.c.File, "config", s.c.File, "the config.yaml of the box (`FILE`; SKYWIRE_CONFIG)")
	err := v.run(ctx, s, f)
	if errors.Is(err, flag.ErrHelp) {
		f.help()
		return nil
	}
	return err
}

func find(name string) *Verb {
	for _, v := range Verbs() {
		if v.Name == name || slices.Contains(v.Aliases, name) {
			return &v
		}
	}
	return nil
}

// flags are those of one verb.
type flags struct {
	*flag.FlagSet
	verb *Verb
	s    *session
	args []string
	json bool
}

// parse takes flags anywhere among the words, up to "--"; leading only before the first word.
func (f *flags) parse(least, most int, leading bool) ([]string, error) {
	var words []string
	rest := f.args
	for {
		if err := f.FlagSet.Parse(rest); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, f.usage(strings.Replace(err.Error(), "flag provided but not defined: -", "unknown flag -", 1))
		}
		left := f.FlagSet.Args()
		ended := len(left) < len(rest) && rest[len(rest)-len(left)-1] == "--"
		if len(left) == 0 || ended || leading {
			words = append(words, left...)
			break
		}
		words, rest = append(words, left[0]), left[1:]
	}
	switch {
	case len(words) < least:
		return nil, f.usage("too few arguments")
	case most >= 0 && len(words) > most:
		return nil, f.usage(fmt.Sprintf("unexpected argument %q", words[most]))
	}
	return words, nil
}

func (f *flags) usage(text string) error {
	return usageError{fmt.Sprintf("%s: %s\nusage: %s", f.verb.Name, text, f.verb.usage())}
}

func (v *Verb) usage() string { return strings.TrimSpace("viscript " + v.Name + " " + v.Args) }

func (f *flags) help() {
	fmt.Fprintf(f.s.out, "usage: %s\n\n%s\n", f.verb.usage(), f.verb.Summary)
	if len(f.verb.Aliases) > 0 {
		fmt.Fprintf(f.s.out, "\nalso: %s\n", strings.Join(f.verb.Aliases, ", "))
	}
	for i, title := range []string{"flags:", "common flags:"} {
		t := tabwriter.NewWriter(f.s.out, 2, 8, 2, ' ', 0)
		f.VisitAll(func(g *flag.Flag) {
			if strings.Contains(" json run config ", " "+g.Name+" ") != (i == 1) {
				return
			}
			if title != "" {
				fmt.Fprintf(f.s.out, "\n%s\n", title)
				title = ""
			}
			value, text := flag.UnquoteUsage(g)
			dash := "--"
			if len(g.Name) == 1 {
				dash = "-"
			}
			fmt.Fprintf(t, "  %s%s %s\t%s\n", dash, g.Name, value, text)
		})
		t.Flush()
	}
}

// dial opens a connection to this box's viscript, or to that of another.
func (s *session) dial(ctx context.Context, h signal.Handler) (*signal.Conn, error) {
	if s.node == "" {
		return signal.Dial(ctx, supervisor.ControlSocket(s.c.RunDir), h)
	}
	if s.c.Dial == nil {
		return nil, signal.Errorf(signal.ErrUnsupported, "there is no way to other boxes here")
	}
	rw, err := s.c.Dial(ctx, s.node)
	if err != nil {
		return nil, err
	}
	c := signal.NewConn(rw, h)
	go c.Run(context.WithoutCancel(ctx)) // ends with Close or with the peer
	return c, nil
}

// connect returns the connection, a new one if viscript was restarted meanwhile.
func (s *session) connect(ctx context.Context) (*signal.Conn, error) {
	s.dialing.Lock()
	defer s.dialing.Unlock()
	if s.conn != nil {
		select {
		case <-s.conn.Done():
			s.conn = nil
		default:
			return s.conn, nil
		}
	}
	notes := make(chan *signal.Request, 64)
	path := supervisor.ControlSocket(s.c.RunDir)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := s.dial(ctx, func(ctx context.Context, r *signal.Request) (any, error) {
		select {
		case notes <- r: // full: the connection waits, and so does viscript
		case <-ctx.Done():
		}
		return nil, nil
	})
	switch {
	case err != nil && s.node != "":
		return nil, err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, signal.Errorf(signal.ErrNotRunning, "not running: nobody answers at %s; start it with: viscript run --headless", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, signal.Errorf(signal.ErrRefused, "%s belongs to another user; run this as the user that runs viscript", path)
	case err != nil:
		return nil, signal.Errorf(signal.ErrNotRunning, "%v", err)
	}
	s.conn, s.notes = c, notes
	return c, nil
}

// call asks viscript, waiting no longer than callTimeout unless patient.
func (s *session) call(ctx context.Context, method string, params, result any, patient bool) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if !patient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	err = c.Call(ctx, method, params, result)
	if errors.Is(err, signal.ErrClosed) {
		return errGone
	}
	return err
}

func (s *session) printJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (s *session) talk(format string, args ...any) {
	fmt.Fprintf(s.errs, "viscript: "+format+"\n", args...)
}
