package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"skywire/signal"
)

// table prints columns.
type table struct {
	*tabwriter.Writer
	paint *bytes.Buffer // what is coloured before it goes out; nil: nothing is
	s     *session
}

func (s *session) table() table {
	if s.paints() {
		b := &bytes.Buffer{}
		return table{tabwriter.NewWriter(b, 2, 8, 2, ' ', 0), b, s}
	}
	return table{tabwriter.NewWriter(s.out, 2, 8, 2, ' ', 0), nil, s}
}

// paints reports whether a table goes to a terminal, in the shell or out of it; what one of several boxes says does not.
func (s *session) paints() bool {
	return s.c.Paint != nil && (s.inShell && s.input != nil && s.input.tty != nil || s.out == s.c.Stdout)
}

// Flush prints what is there, on a terminal in colours and no wider than it is.
func (t table) Flush() error {
	err := t.Writer.Flush()
	if t.paint == nil || err != nil {
		return err
	}
	lines := strings.Split(t.paint.String(), "\n")
	if w := t.s.width(); w > 0 {
		for i, l := range lines {
			if letters := []rune(l); len(letters) > w {
				lines[i] = string(letters[:w-1]) + "…"
			}
		}
	}
	_, err = io.WriteString(t.s.out, t.s.c.Paint(strings.Join(lines, "\n")))
	return err
}

// width is that of the terminal; 0 is unknown.
func (s *session) width() int {
	f, ok := s.c.Stdout.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w < 20 {
		return 0
	}
	return w
}

func (t table) row(cells ...any) {
	for i, c := range cells {
		text := signal.Printable(strings.NewReplacer("\t", " ", "\n", " ").Replace(fmt.Sprint(c)), "")
		if text == "" {
			text = "-"
		}
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, text)
	}
	fmt.Fprintln(t)
}

// opt shows what may be unknown.
func opt[T any](v *T, show func(T) string) string {
	if v == nil {
		return "n/a"
	}
	return show(*v)
}

func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.5 && i < 4 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.3g %cB", f, "kMGTP"[i])
}

func uptime(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
