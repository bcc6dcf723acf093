//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/signal"
)

const messengerTailAbout = `Prints messages in the order in which they came here, ours too. With -f it goes on with those that come, also over a restart
of the messenger.

--json prints one JSON object a line: {cursor, id, account, name, out, time, text, state, …}. A program that wants to miss
nothing and see nothing twice keeps the last cursor that it has dealt with, and begins again with --since CURSOR.

    messenger tail -f --json --since "$(cat cursor)" | while read -r line; do …; done`

func messengerTail(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger tail", "[-f] [--since CURSOR|--now] [--with NODE] [--json]", messengerTailAbout)
	follow := f.Bool("f", false, "go on with what comes")
	since := f.Uint64("since", 0, "begin behind this `CURSOR`")
	now := f.Bool("now", false, "begin with what comes from now on")
	with := f.String("with", "", "only what is said with `NODE`")
	in := f.Bool("in", false, "only what others say")
	_, err := f.Parse(0, 0)
	if err == nil && *now && f.Given("since") {
		err = applet.Usagef("either --since or --now")
	}
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.MsgParams{With: *with, Receive: *in, After: *since, Now: *now, Follow: *follow}
	return f.Duty(ctx, func(ctx context.Context) error {
		return tailMessages(ctx, f, p, func(raw json.RawMessage, m messageInfo) error {
			if f.JSON {
				_, err := fmt.Fprintf(e.Stdout, "%s\n", raw)
				return err
			}
			return printLine(e, m)
		})
	})
}

// tailRetry is how often a tail that follows looks for a messenger that ended.
const tailRetry = time.Second

// tailMessages calls do with each message of a tail. One that follows goes on, where it was, with a messenger that was started
// again.
func tailMessages(ctx context.Context, f *applet.Flags, p messenger.MsgParams, do func(raw json.RawMessage, m messageInfo) error) error {
	for began := false; ; {
		err := tailOnce(ctx, f, &p, do)
		var printing printError
		switch {
		case errors.As(err, &printing):
			return printing.error
		case err == nil || ctx.Err() != nil || !p.Follow:
			return err
		case !errors.Is(err, signal.ErrClosed) && !(began && applet.Code(err) == applet.NotRunning):
			return err
		case !began:
			began = true
			f.Env().Talk(messengerName, "the messenger ended; waiting for it")
		}
		if !pauseFor(ctx, tailRetry) {
			return ctx.Err()
		}
	}
}

// printError is one of printing what came: nothing to try again.
type printError struct{ error }

func tailOnce(ctx context.Context, f *applet.Flags, p *messenger.MsgParams, do func(raw json.RawMessage, m messageInfo) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := dialMessenger(ctx, f, func(_ context.Context, r *signal.Request) (any, error) {
		var page []json.RawMessage
		if r.Method != "msg.lines" || json.Unmarshal(r.Params, &page) != nil {
			return nil, nil
		}
		for _, raw := range page {
			var m messageInfo
			if err := json.Unmarshal(raw, &m); err != nil || ctx.Err() != nil {
				return nil, err
			}
			if err := do(raw, m); err != nil {
				cancel(printError{err})
				return nil, err
			}
			p.After, p.Now = m.Cursor, false
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	err = c.Call(ctx, "msg.tail", *p, nil)
	_ = c.Handled(ctx) // the lines came before the answer, but may not be printed yet; ctx is looked at below
	c.Close()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// printLine is a message as people read it in a list.
func printLine(e *applet.Env, m messageInfo) error {
	arrow := "<"
	if m.Out {
		arrow = ">"
	}
	state := ""
	if m.Out {
		state = "  [" + m.State + "]"
	}
	_, err := fmt.Fprintf(e.Stdout, "%s %s %s %s%s\n", m.Time.Local().Format("01-02 15:04"), arrow, personWord(m), signal.Printable(textOf(m), "\n\t"), state)
	return err
}

// textOf is what stands for a message that is no text.
func textOf(m messageInfo) string {
	if m.Text == "" {
		return "(a file: messenger files)"
	}
	return m.Text
}

func messengerList(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger list", "[-n N] [--with NODE] [--unread|--queued] [--json]", "Lists the last messages, the oldest first. It marks nothing; messenger read does.")
	n := f.Int("n", 20, "the last `N`, at most 1000")
	with := f.String("with", "", "only what is said with `NODE`")
	unread := f.Bool("unread", false, "only of others, and not marked read")
	queued := f.Bool("queued", false, "only ours that no device of theirs has yet, of the last -n")
	_, err := f.Parse(0, 0)
	if err == nil && (*n < 1 || *n > 1000) {
		err = applet.Usagef("-n %d: 1 to 1000", *n)
	}
	if err != nil {
		return f.Exit(err)
	}
	var all []messageInfo
	p := messenger.MsgParams{With: *with, Unread: *unread, Queued: *queued, Last: true, Limit: *n}
	return tellMessenger(ctx, f, "msg.list", p, &all, func() error {
		t := e.NewTable("ID", "TIME", "WITH", "STATE", "TEXT")
		for _, m := range all {
			t.Row(m.ID[:min(10, len(m.ID))], m.Time.Local().Format("01-02 15:04"), personWord(m), stateWords(m), oneLine(textOf(m)))
		}
		return t.Flush()
	})
}

const messengerReadAbout = `Prints the messages that are not marked read, of all or of NODE, and marks them. With IDs it marks those. Whoever sent one with
-w read, or looks at its state, sees that, if the messenger runs with --tell-read.`

func messengerRead(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger read", "[NODE|ID…] [--json]", messengerReadAbout)
	words, err := f.Parse(0, -1)
	if err != nil {
		return f.Exit(err)
	}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, messengerTimeout)
		defer cancel()
		page := []json.RawMessage{}
		ids := []string{}
		with := ""
		if len(words) == 1 && !isID(words[0]) {
			with = words[0]
		}
		if len(words) > 0 && with == "" {
			ids = words
		}
		if len(ids) == 0 {
			if err := c.Call(ctx, "msg.list", messenger.MsgParams{With: with, Unread: true, Limit: 1000}, &page); err != nil {
				return err
			}
		}
		for _, raw := range page {
			var m messageInfo
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			ids = append(ids, m.ID)
			if !f.JSON {
				if err := printLine(e, m); err != nil {
					return err
				}
			}
		}
		if f.JSON {
			if err := e.PrintJSON(page); err != nil {
				return err
			}
		}
		if len(ids) == 0 {
			return nil
		}
		return c.Call(ctx, "msg.read", messenger.MsgParams{IDs: ids}, nil)
	})
}

// isID tells the id of a message, or its beginning, from a name: ids are hex, and a name of 6 letters a to f is not one that people
// give (and may be said as NAME.mesh).
func isID(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return len(s) >= 6 && len(s) <= 64 && len(s) != 52
}
