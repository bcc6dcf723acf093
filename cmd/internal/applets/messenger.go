//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/signal"
)

// messengerName is the applet, its app beside the node and its section.
const messengerName = "messenger"

func messengerApplet() applet.Applet {
	return applet.Command{
		Name:    messengerName,
		Summary: "messages, files and calls between people and boxes, who are known by key and may be away",
		About: "Two people, each with a node and, beside it: messenger run\n\n" +
			"  one:       messenger contact invite --name bob        prints a link; give it to bob, and to nobody else\n" +
			"  the other: messenger contact add 'skywire:contact?…' --name ann\n" +
			"  then:      messenger send bob hello; messenger tail -f; messenger chat ann; messenger file bob photo.jpg\n\n" +
			"A message waits in the queue, then with a mailbox, until a device of theirs has it: send -w delivered waits too.\n" +
			"A number to compare by voice: messenger contact verify bob. Other boxes by message: messenger ctl NODE status.",
		Verbs: messengerVerbs(),
	}.Applet()
}

func messengerVerbs() []applet.Verb {
	return []applet.Verb{
		{Name: "run", Args: "[--account self|cluster] [--strangers closed|stamp|open] [--ram] [flags]", Summary: "the daemon", Run: messengerRun},
		{Name: "id", Args: "[--qr]", Summary: "who we are, and the link by which others find us", Run: messengerID},
		{Name: "status", Summary: "how the messenger is", Run: messengerStatus},
		{Name: "devices", Summary: "the devices of this account, and of contacts", Run: messengerDevices},
		{Name: "contact", Args: "invite|add|list|show|verify|confirm|allow|block|… [ARGS]", Summary: "who may write to us, and to whom we write", Run: contactCommand().Run},
		{Name: "send", Args: "NODE [-w STATE] [--timeout S] [TEXT…|-]", Summary: "a message; its id is printed", Run: messengerSend},
		{Name: "tail", Args: "[-f] [--since CURSOR|--now] [--with NODE]", Summary: "messages as they come", Run: messengerTail},
		{Name: "list", Args: "[-n N] [--with NODE] [--unread]", Summary: "the last messages", Run: messengerList},
		{Name: "show", Args: "ID", Summary: "one message, how far it is and why no farther", Run: messengerShow},
		{Name: "read", Args: "[NODE|ID…]", Summary: "show what is new, and mark it read", Run: messengerRead},
		{Name: "cancel", Args: "ID", Summary: "give up a message that was not delivered", Run: messengerCancel},
		{Name: "file", Args: "NODE PATH [-w] [--timeout S]", Summary: "send a file", Run: messengerFile},
		{Name: "files", Args: "[accept ID|refuse ID]", Summary: "files that come and go", Run: messengerFiles},
		{Name: "chat", Args: "NODE", Summary: "talk on this terminal", Run: messengerChat},
		{Name: "group", Args: "create|list|show|add|remove|admin|rename|leave|send [ARGS]", Summary: "talk among many", Run: groupCommand().Run},
		{Name: "peer", Args: "invite|accept|list|show|change|revoke|… [ARGS]", Summary: "clusters joined by key", Run: peerCommand().Run},
		{Name: "ctl", Args: "NODE VERB [ARGS…] [-w]", Summary: "have another box do something, when it is there", Run: messengerCtl},
		{Name: "audit", Args: "[-n N]", Summary: "what others had this box do, or wanted to", Run: messengerAudit},
		{Name: "statements", Args: "[show ID|drop ID]", Summary: "statements of ledgers that came and that no app here reads", Run: messengerStatements},
		{Name: "export", Args: "[FILE]", Summary: "the history and the contacts as JSON lines", Run: messengerExport},
		{Name: "import", Args: "[FILE|-]", Summary: "take in what export wrote", Run: messengerImport},
	}
}

// messengerTimeout bounds a question to the daemon that waits for nobody.
const messengerTimeout = 30 * time.Second

// dialMessenger connects to the daemon. h gets what it tells by itself.
func dialMessenger(ctx context.Context, f *applet.Flags, h signal.Handler) (*signal.Conn, error) {
	path := filepath.Join(f.Run, messenger.SocketName)
	c, err := signal.Dial(ctx, path, h)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, applet.WithCode(applet.Refused, fmt.Errorf("%s belongs to another user; run this as the user that runs the messenger, or as root", path))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		err = fmt.Errorf("the messenger is not running: nobody answers at %s; start it with: skywire messenger run (or say with --run where its socket is)", path)
	}
	return nil, applet.WithCode(applet.NotRunning, err)
}

// askMessenger does what asks the daemon, and returns the exit status.
func askMessenger(ctx context.Context, f *applet.Flags, do func(ctx context.Context, c *signal.Conn) error) int {
	return f.Duty(ctx, func(ctx context.Context) error {
		c, err := dialMessenger(ctx, f, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		return gone(do(ctx, c))
	})
}

// gone says of a connection that ended in the middle what that means.
func gone(err error) error {
	if errors.Is(err, signal.ErrClosed) {
		return applet.WithCode(applet.NotRunning, errors.New("the messenger ended before it answered"))
	}
	return err
}

// tellMessenger asks one thing and prints the answer: as JSON as it came, or by print after it was decoded into into.
func tellMessenger(ctx context.Context, f *applet.Flags, method string, params, into any, print func() error) int {
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, messengerTimeout)
		defer cancel()
		var raw json.RawMessage
		if err := c.Call(ctx, method, params, &raw); err != nil {
			return err
		}
		return printAnswer(f, raw, into, print)
	})
}

func printAnswer(f *applet.Flags, raw json.RawMessage, into any, print func() error) error {
	if f.JSON {
		return f.Env().PrintJSON(raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("answer of the messenger: %w", err)
	}
	return print()
}

func messengerStatus(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger status", "[--json]", "Shows the account, the queue, the store, and what was not taken from others, by reason.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var s messenger.DaemonStatus
	return tellMessenger(ctx, f, "messenger.status", nil, &s, func() error {
		node := "away; messages wait in the queue"
		if s.Node {
			node = "there"
		}
		fmt.Fprintf(e.Stdout, "account   %s (%s)\ndevice    %s\nnode      %s\nlinks     %d\nqueue     %d not answered\nstore     %s of %s, %s kept for others, %.1f writes an hour\nstrangers %s\n",
			s.Account, s.Kind, s.Device, node, s.Links, s.Queue,
			applet.Bytes(uint64(max(0, s.Store))), applet.Bytes(uint64(max(0, s.Quota))), applet.Bytes(uint64(max(0, s.Mailbox))), s.PerHour, s.Strangers)
		if len(s.Counters) > 0 {
			t := e.NewTable("COUNTER", "N")
			for _, name := range sortedKeys(s.Counters) {
				t.Row(name, s.Counters[name])
			}
			return t.Flush()
		}
		return nil
	})
}

func messengerDevices(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger devices", "[--json]", `Lists the devices that speak for this account and those of others that are known: QUEUE is what they have not
answered, KEPT what we keep for them. A message goes to every device of a
contact, and a copy to every other device of ours: so all of them have one history.`)
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var all []messenger.DeviceInfo
	return tellMessenger(ctx, f, "messenger.devices", nil, &all, func() error {
		t := e.NewTable("ACCOUNT", "DEVICE", "STATE", "CARD", "QUEUE", "KEPT")
		for _, d := range all {
			who := d.Contact
			if d.Own {
				who = "(ours)"
			}
			if who == "" {
				who = d.Account.Short()
			}
			state := onlineWord(d.Online)
			if d.Self {
				state = "this box"
			}
			card := ""
			if d.Card != 0 { // its number is the time when it was made, unless the clock went back
				card = ago(time.Unix(int64(d.Card), 0))
			}
			t.Row(who, d.Device.Device, state, card, d.Queue, d.Kept)
		}
		return t.Flush()
	})
}

const messengerIDAbout = `Prints the contact link of this account. Who has it can ask to be a contact; it may be printed anywhere, for it confirms nobody
by itself. A link that confirms who takes it: messenger contact invite.`

func messengerID(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger id", "[--qr] [--json]", messengerIDAbout)
	qr := f.Bool("qr", false, "draw it as a QR code, too")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var id messenger.ID
	return tellMessenger(ctx, f, "messenger.id", nil, &id, func() error { return printLink(e, id.Link, id.QR, *qr) })
}

// printLink prints a link alone on stdout, so that a script can take it, and the code on stderr.
func printLink(e *applet.Env, link, code string, qr bool) error {
	if qr {
		if err := printQR(e.Stderr, code); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(e.Stdout, link)
	return err
}

// shown is what people are called: our name, what they call themselves, or the start of their key.
func shown(name, claims, key string) string {
	switch {
	case name != "":
		return name
	case claims != "":
		return "“" + claims + "” " + key[:min(8, len(key))]
	}
	return key[:min(8, len(key))]
}

func sortedKeys(m map[string]uint64) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}

// oneLine makes a text fit a table.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 72 {
		return string(r[:71]) + "…"
	}
	return s
}
