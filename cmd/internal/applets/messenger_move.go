//go:build !mini

package applets

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/signal"
)

const messengerExportAbout = `Writes contacts, history, groups and the list of files as JSON lines, to FILE (which only its owner may read) or standard output. Each
line is {"type": "contact"|"message"|"group"|"file", …}. It is in the clear: keep it as you keep the box. Keys, invites, what is in
the queue and what is in files are not in it. messenger import takes it in, on this box or another.`

// exported is one line.
type exported struct {
	Type    string          `json:"type"`
	Contact json.RawMessage `json:"contact,omitempty"`
	Message json.RawMessage `json:"message,omitempty"`
	File    json.RawMessage `json:"file,omitempty"`
	Group   json.RawMessage `json:"group,omitempty"`
}

func messengerExport(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger export", "[FILE]", messengerExportAbout)
	words, err := f.Parse(0, 1)
	if err != nil {
		return f.Exit(err)
	}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		if len(words) == 0 || words[0] == "-" {
			return exportAll(ctx, c, e.Stdout)
		}
		// Beside it, then in its place: a file that is there is whole.
		tmp, err := os.CreateTemp(filepath.Dir(words[0]), ".export")
		if err != nil {
			return err
		}
		defer os.Remove(tmp.Name())
		if err := errors.Join(exportAll(ctx, c, tmp), tmp.Sync(), tmp.Close()); err != nil {
			return err
		}
		return os.Rename(tmp.Name(), words[0])
	})
}

func exportAll(ctx context.Context, c *signal.Conn, to io.Writer) error {
	w := bufio.NewWriter(to)
	put := func(x exported) error {
		b, err := json.Marshal(x)
		if err == nil {
			_, err = w.Write(append(b, '\n'))
		}
		return err
	}
	var contacts []json.RawMessage
	if err := c.Call(ctx, "contact.list", nil, &contacts); err != nil {
		return err
	}
	for _, raw := range contacts {
		if err := put(exported{Type: "contact", Contact: raw}); err != nil {
			return err
		}
	}
	if err := exportGroups(ctx, c, put); err != nil {
		return err
	}
	var files []json.RawMessage
	if err := c.Call(ctx, "file.list", nil, &files); err != nil {
		return err
	}
	for _, raw := range files {
		if err := put(exported{Type: "file", File: raw}); err != nil {
			return err
		}
	}
	for after := uint64(0); ; {
		var page []json.RawMessage
		if err := c.Call(ctx, "msg.list", messenger.MsgParams{After: after, Limit: 1000}, &page); err != nil || len(page) == 0 {
			return errors.Join(err, w.Flush())
		}
		for _, raw := range page {
			var m struct{ Cursor uint64 }
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			after = m.Cursor
			if err := put(exported{Type: "message", Message: raw}); err != nil {
				return err
			}
		}
	}
}

func exportGroups(ctx context.Context, c *signal.Conn, put func(exported) error) error {
	var groups []struct{ ID string }
	if err := c.Call(ctx, "group.list", struct{}{}, &groups); err != nil {
		return err
	}
	for _, g := range groups {
		var raw json.RawMessage
		if err := c.Call(ctx, "group.export", messenger.GroupParams{Group: g.ID}, &raw); err != nil {
			return err
		}
		if err := put(exported{Type: "group", Group: raw}); err != nil {
			return err
		}
	}
	return nil
}

const messengerImportAbout = `Takes in what messenger export has written: contacts, messages, groups and lines of the list of files that are not there yet, as they
stood. Nothing is sent for it, and no contact gets rights over this box.`

// importPage bounds what is handed over at once, in bytes: a line of the socket has 1 MiB.
const importPage = 400 << 10

func messengerImport(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger import", "[FILE|-] [--json]", messengerImportAbout)
	words, err := f.Parse(0, 1)
	if err == nil && len(words) == 0 && e.Stdin == nil {
		err = applet.Usagef("no input")
	}
	if err != nil {
		return f.Exit(err)
	}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		in := e.Stdin
		if len(words) == 1 && words[0] != "-" {
			file, err := os.Open(words[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		n, err := importAll(ctx, c, in)
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(n)
		}
		e.Talk(messengerName, "%d contacts and %d messages, %d groups and %d files were not there and are now", n.Contacts, n.Messages, n.Groups, n.Files)
		return nil
	})
}

func importAll(ctx context.Context, c *signal.Conn, in io.Reader) (n messenger.ImportResult, err error) {
	var p messenger.ImportParams
	size := 0
	flush := func() error {
		var r messenger.ImportResult
		if size == 0 {
			return nil
		}
		err := c.Call(ctx, "messenger.import", p, &r)
		n.Contacts, n.Messages = n.Contacts+r.Contacts, n.Messages+r.Messages
		n.Files, n.Groups = n.Files+r.Files, n.Groups+r.Groups
		p, size = messenger.ImportParams{}, 0
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, signal.MaxLine)
	for number := 1; lines.Scan(); number++ {
		raw := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(raw) == 0 {
			continue
		}
		var x exported
		if err := json.Unmarshal(raw, &x); err != nil {
			return n, fmt.Errorf("line %d: %w", number, err)
		}
		if size += len(raw); size > importPage {
			size -= len(raw)
			if err := flush(); err != nil {
				return n, err
			}
			size = len(raw)
		}
		switch x.Type {
		case "contact":
			p.Contacts = append(p.Contacts, x.Contact)
		case "message":
			p.Messages = append(p.Messages, x.Message)
		case "file":
			p.Files = append(p.Files, x.File)
		case "group":
			var g messenger.ExportedGroup
			if err := json.Unmarshal(x.Group, &g); err != nil {
				return n, fmt.Errorf("line %d: %w", number, err)
			}
			p.Groups = append(p.Groups, g)
		default:
			return n, fmt.Errorf("line %d: type %q: want contact, message, group or file", number, x.Type)
		}
	}
	return n, errors.Join(lines.Err(), flush())
}
