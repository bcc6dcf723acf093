package applet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"skywire/signal"
)

// PrintJSON writes v as one indented JSON document.
func (e *Env) PrintJSON(v any) error {
	enc := json.NewEncoder(e.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Table prints rows in columns for people. Flush writes it.
type Table struct {
	w     *tabwriter.Writer
	out   io.Writer
	paint *bytes.Buffer // what is coloured before it goes out; nil: nothing is
}

// NewTable starts a table on e.Stdout with a heading.
func (e *Env) NewTable(heading ...string) *Table {
	t := &Table{w: newTabs(e.Stdout), out: e.Stdout}
	if e.Colours() {
		t.paint = &bytes.Buffer{}
		t.w = newTabs(t.paint)
	}
	fmt.Fprintln(t.w, strings.Join(heading, "\t"))
	return t
}

// Row adds a row; every cell is printed with %v, an empty one as "-".
func (t *Table) Row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		s := signal.Printable(strings.NewReplacer("\t", " ", "\n", " ").Replace(fmt.Sprint(c)), "")
		if s == "" {
			s = "-"
		}
		fmt.Fprint(t.w, s)
	}
	fmt.Fprintln(t.w)
}

// Flush writes the rows.
func (t *Table) Flush() error {
	err := t.w.Flush()
	if t.paint != nil && err == nil {
		_, err = io.WriteString(t.out, Paint(t.paint.String()))
		t.paint.Reset()
	}
	return err
}

func newTabs(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 2, 8, 2, ' ', 0) }

// Bytes prints a size for people: 1.5 GB.
func Bytes(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.5 && i < 4 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.3g %cB", f, "kMGTP"[i])
}

// Logger makes the logger of a daemon on Stderr at the wished level, text or JSON lines. With JOURNAL_STREAM set the
// time is left out, since the journal has its own.
func (f *Flags) Logger() *slog.Logger {
	o := &slog.HandlerOptions{Level: f.LogLevel}
	if f.env.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	var h slog.Handler = slog.NewTextHandler(f.env.Stderr, o)
	if f.LogJSON {
		h = slog.NewJSONHandler(f.env.Stderr, o)
	}
	return slog.New(h).With("applet", f.Applet())
}
