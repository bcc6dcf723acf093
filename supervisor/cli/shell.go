package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"skywire/supervisor"
)

// maxScriptLine bounds a line of a script; in 2017 it was 127 characters.
const maxScriptLine = 1 << 20

// shell reads commands until the end of the input or exit. It returns the status of the last command that failed.
func (s *session) shell(ctx context.Context) int {
	s.inShell = true
	if s.c.Stdin == nil {
		return s.report(usageError{"no input to read commands from"})
	}
	if _, err := s.connect(ctx); err != nil { // said at once, not after the first command
		return s.report(err)
	}
	in := newInput(s.c.Stdin)
	if in.tty == nil {
		return s.script(ctx)
	}
	s.input = in
	return s.interactive(ctx)
}

// script runs the lines of a file or pipe. A line that fails does not end it.
func (s *session) script(ctx context.Context) int {
	lines := bufio.NewScanner(s.c.Stdin)
	lines.Buffer(nil, maxScriptLine)
	status := 0
	for lines.Scan() && ctx.Err() == nil {
		err := s.line(ctx, lines.Text())
		if errors.Is(err, errLeave) {
			return status
		}
		if code := s.report(err); code != 0 {
			status = code
		}
	}
	if err := lines.Err(); err != nil {
		return s.report(fmt.Errorf("read commands: %w", err))
	}
	return status
}

// line runs one line of the shell.
func (s *session) line(ctx context.Context, line string) error {
	words, err := splitWords(line)
	if err != nil {
		return usageError{err.Error()}
	}
	if len(words) > 0 && words[0] == "viscript" { // pasted from a document
		words = words[1:]
	}
	if len(words) == 0 {
		return nil
	}
	return s.execute(ctx, words)
}

// interactive runs the shell on a terminal.
func (s *session) interactive(ctx context.Context) int {
	fd := int(s.input.tty.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return s.report(err)
	}
	defer term.Restore(fd, old)
	prompt := &promptInput{ctx: ctx, in: s.input, out: s.c.Stdout}
	t := term.NewTerminal(prompt, "viscript> ")
	t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return s.complete(ctx, t, line, pos)
	}
	s.out, s.errs = t, t
	status := 0
	for ctx.Err() == nil {
		if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
			t.SetSize(w, h)
		}
		line, err := t.ReadLine()
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			break // Ctrl-D, or the terminal is gone
		}
		verb, cancel := context.WithCancel(ctx)
		release := s.input.catch(cancel)
		err = s.line(verb, line)
		release()
		cancel()
		if errors.Is(err, errLeave) {
			break
		}
		if code := s.report(err); code != 0 {
			status = code
		}
	}
	fmt.Fprint(s.c.Stdout, "\r\n")
	return status
}

// promptInput feeds the line editor of the shell.
type promptInput struct {
	ctx context.Context
	in  *input
	out io.Writer
}

// Read makes Ctrl-C give up the line instead of the shell.
func (p *promptInput) Read(b []byte) (int, error) {
	n, err := p.in.readKeys(p.ctx, b)
	for i := range n {
		if b[i] == ctrlC {
			b[i] = ctrlU
		}
	}
	return n, err
}

// Write prints.
func (p *promptInput) Write(b []byte) (int, error) { return p.out.Write(b) }

// complete completes the word before the cursor: a verb, an app, or an id.
func (s *session) complete(ctx context.Context, t io.Writer, line string, pos int) (string, int, bool) {
	head := line[:pos]
	cut := strings.LastIndexByte(head, ' ') + 1
	matches := s.candidates(ctx, strings.Fields(head[:cut]), head[cut:])
	switch len(matches) {
	case 0:
		return line, pos, true
	case 1:
		head = head[:cut] + matches[0] + " "
	default:
		head = head[:cut] + commonPrefix(matches)
		if len(head) == pos {
			fmt.Fprintln(t, strings.Join(matches, "  "))
		}
	}
	return head + line[pos:], len(head), true
}

// candidates returns what may stand for word after the words before it.
func (s *session) candidates(ctx context.Context, before []string, word string) (out []string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []string
	if len(before) == 0 {
		for _, v := range Verbs() {
			all = append(all, v.Name)
		}
	} else if v := find(before[0]); v != nil {
		switch {
		case v.Name == "config":
			all = []string{"check", "schema"}
		case v.Name == "start" && !slices.ContainsFunc(before[1:], notFlag), v.Name == "help":
			var list []supervisor.AppInfo
			s.call(ctx, "viscript.apps", nil, &list, false)
			for _, a := range list {
				all = append(all, a.Name)
			}
		case strings.HasPrefix(v.Args, "ID"):
			var list []supervisor.Item
			s.call(ctx, "viscript.ps", obj{"all": v.Name == "logs" || v.Name == "restart"}, &list, false)
			for _, it := range list {
				all = append(all, fmt.Sprint(it.ID), fmt.Sprintf("%s#%d", it.Name, it.ID))
			}
		}
	}
	for _, c := range all {
		if strings.HasPrefix(c, word) {
			out = append(out, c)
		}
	}
	return out
}

func notFlag(s string) bool { return !strings.HasPrefix(s, "-") }

func commonPrefix(list []string) string {
	p := list[0]
	for _, s := range list[1:] {
		for !strings.HasPrefix(s, p) {
			p = p[:len(p)-1]
		}
	}
	return p
}
