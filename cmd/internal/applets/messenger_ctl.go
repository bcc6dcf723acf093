//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const messengerCtlAbout = `Has another box do something, by a message: also one that is off now does it when it comes back, once, if that is before the call
expires. There we must be a contact, and be allowed to: messenger contact allow OUR_NAME read|operate|admin, on that box.

    read     status, apps, ps, versions, ping ID, ru ID, logs ID [LINES]
    operate  start APP [ARGS…], restart ID, stop ID (sd ID)
    admin    reload, apply FILE [SECONDS], confirm, rollback

apply takes a config.yaml; with SECONDS the box goes back to the one before, unless ctl NODE confirm comes in time.

-w waits for what comes of it and prints that; exit status 1 if it failed there, 5 if it was refused there. Without -w the id of
the call is printed: messenger ctl --result ID shows the answer later, --list all calls.

    messenger ctl garage status -w --timeout 30`

func messengerCtl(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger ctl", "NODE VERB [ARGS…] [-w] [--timeout S] | --result ID [-w] | --list", messengerCtlAbout)
	wait := f.Bool("w", false, "wait for the answer")
	timeout := f.Float64("timeout", 0, "wait so many `SECONDS` at most (default: until it expires)")
	expires := f.Duration("expires", 24*time.Hour, "it is not done after this `TIME`")
	result := f.String("result", "", "show what came of the call `ID`")
	list := f.Bool("list", false, "list our calls")
	words, err := f.Parse(0, -1)
	switch {
	case err != nil:
	case *result != "" || *list:
		if len(words) > 0 || *result != "" && *list {
			err = applet.Usagef("--result and --list stand alone")
		}
	case len(words) < 2:
		err = applet.Usagef("too few arguments")
	case *expires < time.Second || *expires > messenger.MaxExpiry:
		err = applet.Usagef("--expires %s: 1s to %s", *expires, messenger.MaxExpiry)
	}
	if err == nil && (*timeout < 0 || *timeout > 0 && !*wait) {
		err = applet.Usagef("--timeout is how long -w waits, in seconds")
	}
	if err != nil {
		return f.Exit(err)
	}
	if *list {
		return ctlList(ctx, f)
	}
	if *timeout == 0 {
		*timeout = expires.Seconds()
	}
	limit := time.Duration(*timeout * float64(time.Second))
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		id := *result
		if id == "" {
			var err error
			if id, err = ctlSend(ctx, c, words, *expires); err != nil {
				return err
			}
			if !*wait {
				if f.JSON {
					return e.PrintJSON(messenger.IDResult{ID: id})
				}
				_, err := fmt.Fprintln(e.Stdout, id)
				return err
			}
		}
		return ctlResult(ctx, f, c, id, *wait, limit)
	})
}

// ctlSend sends a call, with the file that apply names in it.
func ctlSend(ctx context.Context, c *signal.Conn, words []string, expires time.Duration) (string, error) {
	p := messenger.CallParams{To: words[0], Verb: words[1], Args: words[2:], Expires: int64(expires.Seconds())}
	if p.Verb == "apply" && len(p.Args) > 0 {
		b, err := readBounded(p.Args[0], envelope.MaxBody)
		if err != nil {
			return "", err
		}
		p.Text, p.Args = string(b), p.Args[1:]
	}
	var o messenger.CallOut
	ctx, cancel := context.WithTimeout(ctx, messengerTimeout)
	defer cancel()
	err := c.Call(ctx, "ctl.call", p, &o)
	return o.ID, err
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: longer than %d bytes", path, most)
	}
	return b, err
}

// ctlResult prints what came of a call.
func ctlResult(ctx context.Context, f *applet.Flags, c *signal.Conn, id string, wait bool, limit time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var o messenger.CallOut
	err := c.Call(waiting, "ctl.show", messenger.CallParams{ID: id, Wait: wait}, &o)
	late := waiting.Err() != nil && ctx.Err() == nil || errors.Is(err, signal.ErrTimeout)
	if err != nil && !late {
		return err
	}
	if late || o.Done.IsZero() {
		return fmt.Errorf("no answer yet; the call goes on by itself: messenger ctl --result %s -w", id)
	}
	if f.JSON {
		if err := f.Env().PrintJSON(o); err != nil {
			return err
		}
	}
	if len(o.Error) > 0 {
		var e signal.Error
		if err := json.Unmarshal(o.Error, &e); err != nil {
			return fmt.Errorf("answer of that box: %w", err)
		}
		e.Message = "there: " + e.Message
		return &e
	}
	if f.JSON {
		return nil
	}
	return f.Env().PrintJSON(o.Result)
}

func ctlList(ctx context.Context, f *applet.Flags) int {
	var all []messenger.CallOut
	return tellMessenger(ctx, f, "ctl.list", nil, &all, func() error {
		t := f.Env().NewTable("ID", "TIME", "TO", "CALL", "ANSWER")
		for _, o := range all {
			answer := "none yet"
			switch {
			case len(o.Error) > 0:
				answer = "failed: " + string(o.Error)
			case !o.Done.IsZero():
				answer = "done"
			}
			t.Row(o.ID, o.Time.Local().Format("01-02 15:04:05"), o.To.Short(), strings.Join(append([]string{o.Verb}, o.Args...), " "), oneLine(answer))
		}
		return t.Flush()
	})
}

const messengerAuditAbout = `Lists what contacts had this box do by message, and what they were refused, the newest last. The record is kept under --state and
holds the last 2000 lines; of refusals of one account 20 an hour are noted, and how many were not.`

func messengerAudit(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger audit", "[-n N] [--json]", messengerAuditAbout)
	n := f.Int("n", 50, "the last `N`")
	_, err := f.Parse(0, 0)
	if err == nil && *n < 1 {
		err = applet.Usagef("-n %d: at least 1", *n)
	}
	if err != nil {
		return f.Exit(err)
	}
	var all []messenger.AuditLine
	return tellMessenger(ctx, f, "audit.list", messenger.CallParams{Lines: *n}, &all, func() error {
		t := e.NewTable("TIME", "FROM", "MAY", "CALL", "VERDICT", "ERROR")
		for _, l := range all {
			verdict := l.Verdict
			if l.Missed > 0 {
				verdict += fmt.Sprintf(" (and %d more)", l.Missed)
			}
			t.Row(l.Time.Local().Format("01-02 15:04:05"), shown(l.Name, "", l.From), l.Scope, strings.Join(append([]string{l.Verb}, l.Args...), " "), verdict, oneLine(l.Error))
		}
		return t.Flush()
	})
}
