package applet

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Verb is one word of an applet and what it does.
type Verb struct {
	Name    string
	Aliases []string
	Args    string // synopsis after the name
	Summary string
	Run     Func // its Args are the words after the verb
}

// Command is an applet made of verbs.
type Command struct {
	Name    string
	Summary string
	About   string // printed by --help before the verbs
	Verbs   []Verb
	// Default, where not nil, runs when the first word is no verb and DefaultTakes says so (the positional forms of
	// 2017); without DefaultTakes, when there is no word or a flag comes first. Its Args are all the words.
	Default      Func
	DefaultTakes func(args []string) bool
}

// Applet makes the table entry of c.
func (c Command) Applet() Applet {
	var usage []string
	for _, v := range c.Verbs {
		usage = append(usage, strings.TrimSpace(c.Name+" "+v.Name+" "+v.Args))
	}
	return Applet{Name: c.Name, Summary: c.Summary, Usage: strings.Join(usage, "\n"), Run: c.Run}
}

// Run finds the verb in e.Args and runs it. Common flags may stand before the verb.
func (c Command) Run(ctx context.Context, e *Env) int {
	lead, rest := splitCommon(e.Args)
	if len(rest) == 0 {
		if c.Default != nil && c.DefaultTakes == nil {
			return c.Default(ctx, e)
		}
		e.Talk(c.Name, "which verb?")
		c.help(e.Stderr)
		return BadUsage
	}
	word := rest[0]
	if word == "--help" || word == "-h" || word == "-help" || word == "help" && c.find("help") == nil && len(rest) == 1 {
		c.help(e.Stdout)
		return OK
	}
	if v := c.find(word); v != nil {
		return v.Run(ctx, e.With(slices.Concat(lead, rest[1:])))
	}
	if c.Default != nil && (c.DefaultTakes == nil && strings.HasPrefix(word, "-") || c.DefaultTakes != nil && c.DefaultTakes(rest)) {
		return c.Default(ctx, e)
	}
	c.unknown(e, word)
	return BadUsage
}

func (c Command) find(word string) *Verb {
	for i, v := range c.Verbs {
		if v.Name == word || slices.Contains(v.Aliases, word) {
			return &c.Verbs[i]
		}
	}
	return nil
}

func (c Command) unknown(e *Env, word string) {
	var names []string
	for _, v := range c.Verbs {
		names = append(append(names, v.Name), v.Aliases...)
	}
	if s := Suggest(word, names); s != "" {
		e.Talk(c.Name, "unknown verb %q, did you mean %q?", word, s)
	} else {
		e.Talk(c.Name, "unknown verb %q; there are: %s", word, strings.Join(names, " "))
	}
	fmt.Fprintf(e.Stderr, "see: %s --help\n", c.Name)
}

func (c Command) help(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", c.Name, c.Summary)
	if c.About != "" {
		fmt.Fprintf(w, "\n%s\n", c.About)
	}
	fmt.Fprintln(w)
	t := newTabs(w)
	for _, v := range c.Verbs {
		name := strings.Join(append([]string{v.Name}, v.Aliases...), ", ")
		fmt.Fprintf(t, "  %s\t%s\n", strings.TrimSpace(c.Name+" "+name+" "+v.Args), v.Summary)
	}
	t.Flush()
	fmt.Fprintf(w, "\n%s VERB --help says more.\n", c.Name)
}

// splitCommon separates the common flags at the front of args from the rest.
func splitCommon(args []string) (lead, rest []string) {
	common := commonNames()
	i := 0
	for i < len(args) {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			break
		}
		name, _, has := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		valued, known := common[name]
		if !known {
			break
		}
		i++
		if valued && !has && i < len(args) {
			i++
		}
	}
	return args[:i], args[i:]
}
