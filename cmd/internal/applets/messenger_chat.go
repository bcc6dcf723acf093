//go:build !mini

package applets

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const messengerChatAbout = `Talks with NODE on this terminal: the last messages, then theirs as they come, and each line that is typed goes to them. What is
shown is marked read. Arrow keys recall lines, and Ctrl-D ends.

Without a terminal each line of standard input is one message, and it ends with the input.`

// chatHistory is how many messages a chat begins with.
const chatHistory = 20

func messengerChat(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger chat", "NODE", messengerChatAbout)
	words, err := f.Parse(1, 1)
	if err == nil && e.Stdin == nil {
		err = applet.Usagef("no input to talk from")
	}
	if err != nil {
		return f.Exit(err)
	}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		var who messenger.ContactInfo
		if err := c.Call(ctx, "contact.show", messenger.ContactParams{Who: words[0]}, &who); err != nil {
			return err
		}
		if who.Standing == messenger.Stranger {
			return messenger.ErrNoContact
		}
		chat := &chat{f: f, conn: c, who: who.Account.String(), name: shown(who.Name, who.Claims, who.Account.String())}
		return chat.run(ctx, standingWords(who))
	})
}

// chat is one conversation on a terminal.
type chat struct {
	f    *applet.Flags
	conn *signal.Conn
	who  string // key
	name string
	ids  sync.Map // of messages typed here: their lines stand there already
}

func (c *chat) run(ctx context.Context, standing string) error {
	e := c.f.Env()
	tty, ok := e.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return c.lines(ctx, e.Stdin)
	}
	fd := int(tty.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	defer term.Restore(fd, old)
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{tty, e.Stdout}, c.name+"> ")
	if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
		t.SetSize(w, h)
	}
	fmt.Fprintf(t, "%s. Ctrl-D ends.\n", standing)
	ctx, cancel := context.WithCancel(ctx)
	var tail sync.WaitGroup
	var tailErr error
	tail.Go(func() { // ends with ctx, as the tail does
		tailErr = c.tail(ctx, t)
		if tailErr != nil && ctx.Err() == nil {
			fmt.Fprintf(t, "messenger: %v\n", tailErr)
		}
	})
	defer tail.Wait()
	defer cancel()
	defer fmt.Fprint(e.Stdout, "\r\n")
	for {
		line, err := t.ReadLine()
		if errors.Is(err, term.ErrPasteIndicator) {
			err = nil
		}
		if err != nil { // Ctrl-D, Ctrl-C, or the terminal is gone
			return nil
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := c.say(ctx, line); err != nil {
			fmt.Fprintf(t, "messenger: not sent: %v\n", err)
			if errors.Is(err, signal.ErrClosed) {
				return gone(err)
			}
		}
	}
}

// say sends a line.
func (c *chat) say(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, messengerTimeout)
	defer cancel()
	var sent messenger.IDResult
	if err := c.conn.Call(ctx, "msg.send", messenger.MsgParams{To: c.who, Text: line}, &sent); err != nil {
		return err
	}
	c.ids.Store(sent.ID, true)
	return nil
}

// lines sends what comes from a file or pipe.
func (c *chat) lines(ctx context.Context, r io.Reader) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, envelope.MaxBody)
	for scan.Scan() && ctx.Err() == nil {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			if err := c.say(ctx, line); err != nil {
				return err
			}
		}
	}
	return scan.Err()
}

// tail shows the last messages and those that come, and marks them read.
func (c *chat) tail(ctx context.Context, out io.Writer) error {
	var last []messageInfo
	p := messenger.MsgParams{With: c.who, Last: true, Limit: chatHistory}
	if err := c.conn.Call(ctx, "msg.list", p, &last); err != nil {
		return err
	}
	from := messenger.MsgParams{With: c.who, Follow: true, Now: true}
	for _, m := range last {
		if err := c.show(ctx, out, m); err != nil {
			return err
		}
		from.After, from.Now = m.Cursor, false
	}
	return tailMessages(ctx, c.f, from, func(_ json.RawMessage, m messageInfo) error { return c.show(ctx, out, m) })
}

func (c *chat) show(ctx context.Context, out io.Writer, m messageInfo) error {
	if _, ours := c.ids.LoadAndDelete(m.ID); ours {
		return nil
	}
	name := c.name
	if m.Out {
		name = "we"
	}
	if g := groupWord(m); g != "" {
		name += " in group " + g
	}
	if _, err := fmt.Fprintf(out, "%s %s: %s\n", m.Time.Local().Format("15:04"), name, signal.Printable(textOf(m), "\n\t")); err != nil {
		return err
	}
	if m.Out || m.Seen {
		return nil
	}
	return c.conn.Call(ctx, "msg.read", messenger.MsgParams{IDs: []string{m.ID}}, nil)
}
