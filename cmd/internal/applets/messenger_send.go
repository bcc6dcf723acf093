//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const messengerSendAbout = `Sends a text and prints its id. NODE is a contact's name or key. Without TEXT, or with -, the text is read from standard
input; several words are one text.

Without -w it returns as soon as the message is in the queue on disk; from there it goes by itself, now or when they are there.
-w waits until it has come so far, and succeeds only then:

    relayed    a device or a mailbox has it (also: stored)
    delivered  a device of theirs has it
    read       they have marked it read, and tell

Exit status: 0 it came so far; 1 it failed, or time is up (the reason is told, and it goes on by itself); 3 the messenger is
not running; 4 no such contact; 5 not to this contact: blocked, changed key, or nobody has confirmed it here.

    df -h / | messenger send ops -w delivered --timeout 60`

func messengerSend(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger send", "NODE [-w relayed|delivered|read] [--timeout S] [TEXT…|-]", messengerSendAbout)
	want := f.String("w", "", "wait for this `STATE`")
	timeout := f.Float64("timeout", 0, "wait so many `SECONDS` at most (default: as long as the message lives)")
	expires := f.Duration("expires", messenger.DefaultExpiry, "give up after this `TIME`, at most 720h")
	words, err := f.Parse(1, -1)
	state := messenger.State(0)
	if err == nil && *want != "" {
		if err = state.UnmarshalText([]byte(*want)); err != nil || state == messenger.Failed || state == messenger.Received {
			err = applet.Usagef("-w %s: relayed, delivered or read", *want)
		}
	}
	if err == nil && (*timeout < 0 || *timeout > 0 && state == 0) {
		err = applet.Usagef("--timeout is how long -w waits, in seconds")
	}
	if err == nil && (*expires < time.Second || *expires > messenger.MaxExpiry) {
		err = applet.Usagef("--expires %s: 1s to %s", *expires, messenger.MaxExpiry)
	}
	if err != nil {
		return f.Exit(err)
	}
	text, err := textFrom(e, words[1:])
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.MsgParams{To: words[0], Text: text, Expires: int64(expires.Seconds())}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error { return sendAndWait(ctx, f, c, p, state, *timeout) })
}

// textFrom is what a person wants to say: the words, or standard input.
func textFrom(e *applet.Env, words []string) (string, error) {
	if len(words) > 0 && !(len(words) == 1 && words[0] == "-") {
		return strings.Join(words, " "), nil
	}
	if e.Stdin == nil {
		return "", applet.Usagef("no text")
	}
	b, err := io.ReadAll(io.LimitReader(e.Stdin, envelope.MaxBody+2))
	if err != nil {
		return "", fmt.Errorf("read the text: %w", err)
	}
	text := strings.TrimSuffix(string(b), "\n") // that of echo is not meant
	if len(text) > envelope.MaxBody {
		return "", applet.Usagef("the text is longer than %d bytes: send it as a file (messenger file)", envelope.MaxBody)
	}
	if text == "" {
		return "", applet.Usagef("no text: nothing came from standard input")
	}
	return text, nil
}

func sendAndWait(ctx context.Context, f *applet.Flags, c *signal.Conn, p messenger.MsgParams, want messenger.State, timeout float64) error {
	var sent messenger.IDResult
	limited, cancel := context.WithTimeout(ctx, messengerTimeout)
	err := c.Call(limited, "msg.send", p, &sent)
	cancel()
	if err != nil {
		return err
	}
	if want == 0 {
		if f.JSON {
			return f.Env().PrintJSON(sent)
		}
		_, err = fmt.Fprintln(f.Env().Stdout, sent.ID)
		return err
	}
	if !f.JSON { // at once: it is on its way, whatever the wait brings
		fmt.Fprintln(f.Env().Stdout, sent.ID)
	}
	m, raw, err := waitMessage(ctx, c, sent.ID, want, timeout)
	if f.JSON && raw != nil {
		err = errors.Join(f.Env().PrintJSON(raw), err)
	}
	if err != nil {
		return err
	}
	return reached(m, want)
}

// messageInfo is a message as the daemon shows it.
type messageInfo struct {
	Cursor    uint64    `json:"cursor"`
	ID        string    `json:"id"`
	Account   string    `json:"account"`
	Device    string    `json:"device"`
	Name      string    `json:"name"`
	Group     string    `json:"group"`
	GroupName string    `json:"group_name"`
	Out       bool      `json:"out"`
	Kind      int       `json:"kind"`
	Time      time.Time `json:"time"`
	Text      string    `json:"text"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
	Where     string    `json:"where"`
	Next      time.Time `json:"next"`
	Expires   time.Time `json:"expires"`
	Seen      bool      `json:"seen"`
	Reached   int       `json:"reached"`
	Recipient int       `json:"recipients"`
}

// waitMessage waits until a message has come so far, has failed, or time is up, and returns how it is then.
func waitMessage(ctx context.Context, c *signal.Conn, id string, want messenger.State, timeout float64) (m messageInfo, raw json.RawMessage, err error) {
	limit := messenger.MaxExpiry
	if timeout > 0 {
		limit = time.Duration(timeout * float64(time.Second))
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = c.Call(waiting, "msg.wait", messenger.MsgParams{ID: id, State: want}, &raw)
	if waiting.Err() != nil && ctx.Err() == nil || errors.Is(err, signal.ErrTimeout) {
		last, cancel := context.WithTimeout(ctx, messengerTimeout)
		defer cancel()
		err = c.Call(last, "msg.show", messenger.MsgParams{ID: id}, &raw)
	}
	if err != nil {
		return m, nil, err
	}
	return m, raw, json.Unmarshal(raw, &m)
}

// reached is nil if a message has come so far, else why not.
func reached(m messageInfo, want messenger.State) error {
	var s messenger.State
	if err := s.UnmarshalText([]byte(m.State)); err != nil {
		return err
	}
	switch {
	case s == messenger.Failed:
		return fmt.Errorf("%s failed: %s", m.ID[:10], m.Reason)
	case s >= want:
		return nil
	}
	return fmt.Errorf("%s is not %s in time: it is %s; it goes on by itself until %s (messenger show %s, messenger cancel %s)",
		m.ID[:10], want, stateWords(m), m.Expires.Local().Format(time.DateTime), m.ID[:10], m.ID[:10])
}

// stateWords says how far a message is, and why no farther.
func stateWords(m messageInfo) string {
	s := m.State
	if m.Where != "" {
		s += " at " + m.Where
	}
	if m.Recipient > 1 {
		s += fmt.Sprintf(", %d of %d reached", m.Reached, m.Recipient)
	}
	if m.Reason != "" {
		s += ", " + m.Reason
	}
	if !m.Next.IsZero() && time.Until(m.Next) > 0 {
		s += fmt.Sprintf(", next try in %s", time.Until(m.Next).Round(time.Second))
	}
	return s
}

func messengerShow(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger show", "ID [--json]", "Shows a message. ID is what send printed, or its first 6 letters or more.")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	var m messageInfo
	return tellMessenger(ctx, f, "msg.show", messenger.MsgParams{ID: words[0]}, &m, func() error { return printMessage(e, m) })
}

func messengerCancel(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger cancel", "ID [--json]", "Gives up a message of ours. What a mailbox holds of it already may still arrive.")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	var m messageInfo
	return tellMessenger(ctx, f, "msg.cancel", messenger.MsgParams{ID: words[0]}, &m, func() error { return printMessage(e, m) })
}

func printMessage(e *applet.Env, m messageInfo) error {
	direction := "from"
	if m.Out {
		direction = "to"
	}
	_, err := fmt.Fprintf(e.Stdout, "id       %s\n%-8s %s\ntime     %s\nstate    %s since %s\nexpires  %s\n\n%s\n", m.ID, direction, personWord(m),
		m.Time.Local().Format(time.DateTime), stateWords(m), m.Since.Local().Format(time.DateTime), m.Expires.Local().Format(time.DateTime),
		signal.Printable(m.Text, "\n\t"))
	return err
}

func personWord(m messageInfo) string {
	who := shown(m.Name, "", m.Account)
	if g := groupWord(m); g != "" {
		who += " in group " + g
	}
	return who
}

// groupWord is the name of the group that a message was said in, else the begin of its id; "": none.
func groupWord(m messageInfo) string {
	if m.GroupName != "" {
		return signal.Printable(m.GroupName, "")
	}
	return m.Group[:min(len(m.Group), 8)]
}
