package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"skywire/signal"
)

// table prints columns.
type table struct{ *tabwriter.Writer }

func (s *session) table() table { return table{tabwriter.NewWriter(s.out, 2, 8, 2, ' ', 0)} }

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
