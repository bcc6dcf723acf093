package applet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// Common are the flags that every verb has. Defaults come from SKYWIRE_CONFIG, SKYWIRE_STATE, SKYWIRE_RUN,
// SKYWIRE_LOG_LEVEL and SKYWIRE_LOG_JSON, then from the place (root, OpenWrt, user).
type Common struct {
	Config   string
	State    string
	Run      string
	LogLevel slog.Level
	LogJSON  bool
	JSON     bool

	configGiven bool
}

// Flags is the flag set of one verb: the standard one, with the common flags, help on stdout, usage errors of status 2
// with a suggestion, and flags allowed after the arguments.
//
//	f := applet.NewFlags(e, "node ping", "NODE [-c N]", "Pings a node over the mesh.")
//	count := f.Int("c", 5, "how many")
//	args, err := f.Parse(1, 1)
//	if err != nil {
//		return f.Exit(err)
//	}
type Flags struct {
	*flag.FlagSet
	Common

	env      *Env
	command  string // "node ping"
	synopsis string // "NODE [-c N]"
	about    string
	given    []string // names of flags set by a person, in order
}

// NewFlags makes the flag set of command ("node ping"); synopsis is what follows it in the usage line, about says in a
// sentence or more what it does and is printed by --help.
func NewFlags(e *Env, command, synopsis, about string) *Flags {
	f := &Flags{
		FlagSet: flag.NewFlagSet(command, flag.ContinueOnError),
		env:     e, command: command, synopsis: synopsis, about: about,
	}
	f.SetOutput(io.Discard) // Exit prints
	f.Usage = func() {}
	config, state, run := here().defaults(e)
	f.configGiven = e.Getenv("SKYWIRE_CONFIG") != ""
	or := func(name, fallback string) string {
		if v := e.Getenv(name); v != "" {
			return v
		}
		return fallback
	}
	f.StringVar(&f.Config, "config", or("SKYWIRE_CONFIG", config), "the config.yaml of the box (`FILE`; SKYWIRE_CONFIG)")
	f.StringVar(&f.State, "state", or("SKYWIRE_STATE", state), "`DIR` for keys and databases (SKYWIRE_STATE)")
	f.StringVar(&f.Run, "run", or("SKYWIRE_RUN", run), "`DIR` for sockets and pid files (SKYWIRE_RUN)")
	level := slog.LevelInfo
	_ = level.UnmarshalText([]byte(e.Getenv("SKYWIRE_LOG_LEVEL"))) // a wrong value leaves info
	f.TextVar(&f.LogLevel, "log-level", level, "`LEVEL` of the log on stderr: debug, info, warn, error")
	f.BoolVar(&f.LogJSON, "log-json", e.Getenv("SKYWIRE_LOG_JSON") == "1", "log as JSON lines")
	f.BoolVar(&f.JSON, "json", false, "print one JSON document on stdout")
	return f
}

// commonNames are the flags of Common; valued says which take a value.
func commonNames() map[string]bool {
	return map[string]bool{"config": true, "state": true, "run": true, "log-level": true, "log-json": false, "json": false}
}

// Parse parses the arguments of the Env; flags may stand before, between and after the words, and "--" ends them.
// It returns the words. Fewer than least or (if most ≥ 0) more than most are a usage error.
func (f *Flags) Parse(least, most int) ([]string, error) {
	var words []string
	rest := f.env.Args
	for {
		if err := f.parse(rest); err != nil {
			return nil, err
		}
		left := f.FlagSet.Args()
		ended := len(left) < len(rest) && rest[len(rest)-len(left)-1] == "--"
		if len(left) == 0 || ended {
			words = append(words, left...)
			break
		}
		words, rest = append(words, left[0]), left[1:]
	}
	return words, f.check(words, least, most)
}

// ParseLeading parses the flags before the first word only; the rest stays as it is, for verbs that pass words on.
func (f *Flags) ParseLeading(least, most int) ([]string, error) {
	if err := f.parse(f.env.Args); err != nil {
		return nil, err
	}
	return f.FlagSet.Args(), f.check(f.FlagSet.Args(), least, most)
}

func (f *Flags) parse(args []string) error {
	err := f.FlagSet.Parse(args)
	f.given = f.given[:0]
	f.Visit(func(g *flag.Flag) { f.given = append(f.given, g.Name) })
	f.configGiven = f.configGiven || slices.Contains(f.given, "config")
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		var names []string
		f.VisitAll(func(g *flag.Flag) { names = append(names, g.Name) })
		text = "unknown flag --" + strings.TrimLeft(name, "-")
		if s := Suggest(strings.TrimLeft(name, "-"), names); s != "" {
			text += ", did you mean --" + s + "?"
		}
	}
	return Usagef("%s", text)
}

func (f *Flags) check(words []string, least, most int) error {
	switch {
	case len(words) < least:
		return Usagef("too few arguments")
	case most >= 0 && len(words) > most:
		return Usagef("unexpected argument %q", words[most])
	}
	return nil
}

// Given reports whether a person set the flag on the command line.
func (f *Flags) Given(name string) bool { return slices.Contains(f.given, name) }

// Exit ends a verb: it prints help on stdout, or the error as "APPLET: text" on stderr (with the usage line when the
// usage was wrong), and returns the exit status.
func (f *Flags) Exit(err error) int {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, flag.ErrHelp):
		f.help(f.env.Stdout)
		return OK
	}
	f.env.Talk(f.Applet(), "%s", err)
	if errors.Is(err, ErrUsage) {
		fmt.Fprintf(f.env.Stderr, "usage: %s\nsee: %s --help\n", f.usage(), f.command)
	}
	return Code(err)
}

// Applet is the first word of the command: the name before the colon in messages.
func (f *Flags) Applet() string {
	name, _, _ := strings.Cut(f.command, " ")
	return name
}

// Env returns the world the flags were read from.
func (f *Flags) Env() *Env { return f.env }

func (f *Flags) usage() string {
	return strings.TrimSpace(f.command + " " + f.synopsis)
}

func (f *Flags) help(w io.Writer) {
	fmt.Fprintf(w, "usage: %s\n", f.usage())
	if f.about != "" {
		fmt.Fprintf(w, "\n%s\n", f.about)
	}
	common := commonNames()
	print := func(title string, wanted func(name string) bool) {
		t := newTabs(w)
		first := true
		f.VisitAll(func(g *flag.Flag) {
			if !wanted(g.Name) {
				return
			}
			if first {
				fmt.Fprintf(t, "\n%s\n", title)
				first = false
			}
			fmt.Fprintln(t, describe(g))
		})
		t.Flush()
	}
	print("flags:", func(n string) bool { _, c := common[n]; return !c })
	print("common flags:", func(n string) bool { _, c := common[n]; return c })
}

func describe(g *flag.Flag) string {
	value, text := flag.UnquoteUsage(g)
	name := "--" + g.Name
	if len(g.Name) == 1 {
		name = "-" + g.Name
	}
	if value != "" {
		name += " " + value
	}
	if d := g.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" {
		text += " (default " + d + ")"
	}
	return "  " + name + "\t" + text
}

// Duty runs what a verb does after its flags are parsed and turns its error into the exit status; an error that only
// says ctx was cancelled is a clean end, since main cancels it on SIGINT and SIGTERM.
func (f *Flags) Duty(ctx context.Context, run func(context.Context) error) int {
	err := run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return OK
	}
	return f.Exit(err)
}
