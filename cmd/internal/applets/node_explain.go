package applets

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/node/api"
)

func millis(v float64) string { return fmt.Sprintf("%.2f ms", v) }

// kbit writes a capacity; nothing where it is not known.
func kbit(v uint64) string {
	switch {
	case v == 0:
		return ""
	case v < 10_000:
		return fmt.Sprintf("%d kbit/s", v)
	}
	return fmt.Sprintf("%d Mbit/s", v/1000)
}

// seconds writes a time for people.
func seconds(s float64) string {
	switch {
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 7200:
		return fmt.Sprintf("%.0f min", s/60)
	}
	return fmt.Sprintf("%.0f h", s/3600)
}

func arrows(names []string) string { return strings.Join(names, " → ") }

const nodeTraceAbout = `Shows the path in use to a node. RTT is the round trip from here to each of its nodes, just measured; the other columns
are of the link to that node, at the worse of what its two ends say. UP is how long that link is up, at least.`

func nodeTrace(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node trace", "NODE [--json]", nodeTraceAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.trace", api.KeyParams{Key: words[0]}, func(r api.Trace) error {
		t := e.NewTable("HOP", "NAME", "KEY", "RTT", "LINK RTT", "JITTER", "LOSS", "CAPACITY", "CARRIER", "MTU", "UP")
		for i, h := range r.Hops {
			rtt, linkRTT, jitter, loss := "no answer", "", "", ""
			if h.RTT != nil {
				rtt = millis(*h.RTT)
			}
			if h.LinkRTT != nil {
				linkRTT, jitter, loss = millis(*h.LinkRTT), millis(h.Jitter), percent(h.Loss)
			}
			mtu, up := "", ""
			if h.MTU > 0 {
				mtu = fmt.Sprint(h.MTU)
			}
			if h.UpS > 0 {
				up = seconds(h.UpS)
			}
			t.Row(i+1, h.Name, h.Key, rtt, linkRTT, jitter, loss, kbit(h.Capacity), h.Carrier, mtu, up)
		}
		return t.Flush()
	})
}

const nodeWhyAbout = `Says why traffic to a node takes the path it takes: which path and since when, why it is relayed and what was tried to reach
the node directly, what the other paths cost and why each of them is not taken.

A cost is in ms: the round trip, and 1 a hop; beside it 1 % of loss counts 20, half of the jitter, 48 divided by the Mbit/s at which
a link was seen to be full, and 20 for each time that a link came back lately. A path is left for another one that costs a fifth and
2 less, or a fifth less over fewer hops, and not more often than a few times in some minutes.`

func nodeWhy(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node why", "NODE [--json]", nodeWhyAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.why", api.KeyParams{Key: words[0]}, func(w api.Why) error { return printWhy(e, w) })
}

func printWhy(e *applet.Env, w api.Why) error {
	line := func(word, format string, args ...any) {
		fmt.Fprintf(e.Stdout, "%-9s %s\n", word, fmt.Sprintf(format, args...))
	}
	line("node", "%s", strings.TrimSpace(w.Name+" "+w.Key.String()))
	line("path", "%s", w.Summary)
	if u := w.InUse; u != nil {
		line("", "%s, set up by %s", arrows(u.Names), u.SetUp)
		line("measured", "round trip %s, loss %s, mtu %d", millis(u.RTT), percent(u.Loss), u.MTU)
	}
	line("direct", "%s", w.Direct)
	if w.NAT.Ours != "" || w.NAT.Theirs != "" {
		line("nat", "here: %s; there: %s", cmp.Or(w.NAT.Ours, "not known"), cmp.Or(w.NAT.Theirs, "not known"))
	}
	for _, n := range w.Notes {
		line("note", "%s", n)
	}
	if len(w.Tried) > 0 {
		fmt.Fprintln(e.Stdout)
		t := e.NewTable("TRIED", "CARRIER", "ADDRESS", "AGO", "RESULT")
		for _, a := range w.Tried {
			t.Row(a.Way, a.Carrier, a.Address, seconds(a.AgoS), a.Result)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(w.Paths) == 0 {
		return nil
	}
	fmt.Fprintln(e.Stdout)
	t := e.NewTable("STATE", "PATH", "RTT", "LOSS", "CAPACITY", "COST", "WHY")
	for _, p := range w.Paths {
		t.Row(p.State, arrows(p.Names), millis(p.RTT), percent(p.Loss), kbit(p.Capacity), fmt.Sprintf("%.1f", p.Cost), p.Reason)
	}
	return t.Flush()
}

const nodeEventsAbout = `Lists what changed, each with its cause: links up, down and moved, paths used, left and lost, nodes that came and went, addresses
and NATs of this box, members. The node keeps the last few hundred. With --json and -f each event is a line.`

func nodeEvents(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node events", "[-f] [-n N] [--json]", nodeEventsAbout)
	following := f.Bool("f", false, "wait for further events until interrupted")
	n := f.Int("n", 100, "the last `N` events at first")
	_, err := f.Parse(0, 0)
	if err == nil && (*n < 1 || *n > api.MaxEvents) {
		err = applet.Usagef("-n %d: want 1 to %d", *n, api.MaxEvents)
	}
	if err != nil {
		return f.Exit(err)
	}
	return ask(ctx, f, func(ctx context.Context, c *app.Client) error {
		r := api.Events{}
		if err := c.Call(ctx, "node.events", api.EventsParams{Limit: *n}, &r); err != nil {
			return err
		}
		if !*following {
			if f.JSON {
				return e.PrintJSON(r.Events)
			}
			return printEvents(e.Stdout, r, false)
		}
		return follow(ctx, e.Stdout, c, r, f.JSON)
	})
}

// follow prints events as they come until ctx ends.
func follow(ctx context.Context, w io.Writer, c *app.Client, r api.Events, asJSON bool) error {
	for {
		if err := printEvents(w, r, asJSON); err != nil {
			return err
		}
		// The first event ever has the number 1: asking after 0 is asking for the last ones.
		p := api.EventsParams{After: max(r.Next, 1), WaitS: api.MaxEventWait.Seconds()}
		if r.Next == 0 {
			p.After = 0
		}
		r = api.Events{}
		if err := c.Call(ctx, "node.events", p, &r); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// printEvents writes one event a line.
func printEvents(w io.Writer, r api.Events, asJSON bool) error {
	if r.Missed > 0 && !asJSON {
		fmt.Fprintf(w, "… %d events are no longer kept\n", r.Missed)
	}
	enc := json.NewEncoder(w)
	for _, v := range r.Events {
		if asJSON {
			if err := enc.Encode(v); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(w, eventLine(v)); err != nil {
			return err
		}
	}
	return nil
}

func eventLine(v api.Event) string {
	b := v.Time.Local().Format(time.DateTime) + "  " + strings.ReplaceAll(v.Kind, "_", " ")
	switch {
	case len(v.Names) > 0:
		b += "  " + arrows(v.Names)
	case v.Name != "":
		b += "  " + v.Name
	case v.Peer != nil:
		b += "  " + v.Peer.Short()
	}
	if v.What != "" {
		b += "  " + v.What
	}
	if v.Cause != "" {
		b += ": " + v.Cause
	}
	return b
}
