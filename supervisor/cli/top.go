package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"skywire/supervisor"
)

// What the screen of top is made of: a buffer of its own, so that what was there before comes back.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l"
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// sight is one look at all apps.
type sight struct {
	at   time.Time
	rows []supervisor.Top
}

// topView is how top is shown.
type topView struct {
	s     *session
	order byte // the key that chose it
	last  sight
	now   sight
}

func top(ctx context.Context, s *session, f *flags) error {
	every := f.Float64("d", 1, "`SECONDS` between two looks")
	n := f.Int("n", 0, "end after `N` looks (default: 1 unless this is a terminal)")
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	if *every < 0.1 || *every > 3600 {
		return f.usage("-d takes 0.1 to 3600 seconds")
	}
	v := &topView{s: s, order: 'c'}
	live := s.input != nil && s.input.tty != nil && !f.json && *n == 0
	if *n == 0 && !live {
		*n = 1
	}
	period := time.Duration(*every * float64(time.Second))
	if live {
		return v.live(ctx, period)
	}
	for i := range *n {
		if i > 0 && !wait(ctx, period) {
			return nil
		}
		if err := v.look(ctx); err != nil {
			return err
		}
		if f.json {
			if err := s.printJSON(v.now.rows); err != nil {
				return err
			}
			continue
		}
		s.out.Write(v.text())
	}
	return nil
}

// wait reports whether d has passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (v *topView) look(ctx context.Context) error {
	v.last = v.now
	v.now = sight{at: time.Now()}
	return v.s.call(ctx, "viscript.top", nil, &v.now.rows, false)
}

// live shows top until q or Ctrl-C, also over a restart of viscript.
func (v *topView) live(ctx context.Context, period time.Duration) error {
	fd := int(v.s.input.tty.Fd())
	if !v.s.inShell { // the shell has done so already
		old, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer term.Restore(fd, old)
	}
	ctx, cancel := context.WithCancel(ctx)
	keys := make(chan byte, 16)
	done := make(chan struct{})
	defer func() {
		cancel()
		<-done
	}()
	go func() {
		defer close(done)
		v.s.keys(ctx, keys)
	}()
	out := v.s.c.Stdout
	io.WriteString(out, screenOpen)
	defer io.WriteString(out, screenClose)
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		note := ""
		if err := v.look(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			note = err.Error()
		}
		v.paint(out, fd, note)
		for again := false; !again; {
			select {
			case <-t.C:
				again = true
			case k := <-keys:
				switch k {
				case 'q', 'Q', ctrlC, ctrlD:
					return nil
				case 'c', 'm', 'i', 'n':
					v.order = k
					v.paint(out, fd, note)
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// keys sends what is typed until ctx ends; the end of the input is Ctrl-D.
func (s *session) keys(ctx context.Context, to chan<- byte) {
	b := make([]byte, 1)
	for {
		n, err := s.input.read(ctx, b)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, io.EOF) {
			n, b[0] = 1, ctrlD
		}
		if n == 1 {
			select {
			case to <- b[0]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// paint writes over the screen, which so never flickers.
func (v *topView) paint(out io.Writer, fd int, note string) {
	w, h, err := term.GetSize(fd)
	if err != nil || w < 20 || h < 3 {
		w, h = 80, 24
	}
	text := v.text()
	if note != "" {
		text = append([]byte(note+"\n"), text...)
	}
	var b bytes.Buffer
	b.WriteString(screenHome)
	rows := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(rows) > h-1 {
		rows = append(rows[:h-2], fmt.Sprintf("… %d more", len(rows)-h+2))
	}
	rows = append(rows, "q quits · order: c cpu, m memory, i id, n name")
	for i, r := range rows {
		if letters := []rune(r); len(letters) > w {
			rows[i] = string(letters[:w])
		}
	}
	if v.s.c.Paint != nil {
		rows = strings.Split(v.s.c.Paint(strings.Join(rows, "\n")), "\n")
	}
	b.WriteString(strings.Join(rows, clearRight+"\r\n") + clearRight)
	b.WriteString(clearBelow)
	out.Write(b.Bytes())
}

// text is the table.
func (v *topView) text() []byte {
	type line struct {
		supervisor.Top
		cpu         *float64
		read, write *uint64
	}
	before := map[uint64]supervisor.Top{}
	for _, t := range v.last.rows {
		before[t.ID] = t
	}
	wall := v.now.at.Sub(v.last.at).Seconds()
	var all []line
	var sumCPU float64
	var sumRSS uint64
	running := 0
	for _, t := range v.now.rows {
		l := line{Top: t, cpu: t.Usage.CPUPercent}
		if b, ok := before[t.ID]; ok && b.Usage.PID == t.Usage.PID && wall > 0.01 {
			l.cpu = rate(t.Usage.CPU(), b.Usage.CPU(), wall/100)
			l.read = perSecond(t.Usage.IORead, b.Usage.IORead, wall)
			l.write = perSecond(t.Usage.IOWrite, b.Usage.IOWrite, wall)
		}
		if l.cpu != nil {
			sumCPU += *l.cpu
		}
		if t.Usage.RSS != nil {
			sumRSS += *t.Usage.RSS
		}
		if t.Usage.PID != 0 {
			running++
		}
		all = append(all, l)
	}
	sort.SliceStable(all, func(i, j int) bool { // they come by id
		a, b := all[i], all[j]
		switch v.order {
		case 'c':
			return value(a.cpu) > value(b.cpu)
		case 'm':
			return value(a.Usage.RSS) > value(b.Usage.RSS)
		case 'n':
			return a.Name < b.Name
		}
		return false
	})
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  %d apps, %d running  cpu %.1f%%  rss %s\n", v.now.at.Format(time.TimeOnly), len(all), running, sumCPU, size(sumRSS))
	t := table{Writer: tabwriter.NewWriter(&b, 2, 8, 2, ' ', 0)}
	t.row("ID", "NAME", "STATE", "PID", "PROC", "THR", "CPU", "RSS", "PSS", "FDS", "READ/S", "WRITE/S", "UP", "RESTARTS", "SOURCE")
	for _, l := range all {
		u, pid, up := l.Usage, "-", "-"
		if u.PID != 0 {
			pid, up = strconv.Itoa(u.PID), uptime(time.Duration(u.Uptime*float64(time.Second)))
		}
		t.row(
			l.ID, l.Name, l.State, pid, opt(u.Processes, strconv.Itoa), opt(u.Threads, strconv.Itoa),
			opt(l.cpu, func(v float64) string { return fmt.Sprintf("%.1f%%", v) }), opt(u.RSS, size), opt(u.PSS, size),
			opt(u.FDs, strconv.Itoa), opt(l.read, size), opt(l.write, size), up, l.Restarts, u.Source,
		)
	}
	t.Flush()
	return b.Bytes()
}

// rate is how much a number that only grows grew in a unit of time; nil if it is unknown or began anew.
func rate(now, before *float64, unit float64) *float64 {
	if now == nil || before == nil || *now < *before {
		return nil
	}
	r := (*now - *before) / unit
	return &r
}

func perSecond(now, before *uint64, secs float64) *uint64 {
	if now == nil || before == nil || *now < *before {
		return nil
	}
	r := uint64(float64(*now-*before) / secs)
	return &r
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
