package messenger

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// FileParams are those of the methods of files.
type FileParams struct {
	To   string `json:"to,omitempty"`
	Path string `json:"path,omitempty"` // absolute: the daemon has a working directory of its own
	ID   string `json:"id,omitempty"`
}

// FileInfo is a file as the socket shows it.
type FileInfo struct {
	ID   string `json:"id"`
	With string `json:"with,omitempty"` // our name for who it is
	File
}

func (s *Server) fileMethods() map[string]Method {
	word := func(say func(MessageID) error) Method {
		return bind(func(_ context.Context, p FileParams) (any, error) {
			f, err := s.file(p.ID)
			if err == nil {
				err = say(f.File.ID)
			}
			if err != nil {
				return nil, err
			}
			return s.file(f.ID)
		})
	}
	return map[string]Method{
		"file.send": bind(func(ctx context.Context, p FileParams) (any, error) {
			to, err := s.account(ctx, p.To)
			if err != nil {
				return nil, err
			}
			if !filepath.IsAbs(p.Path) {
				return nil, signal.Errorf(signal.ErrUsage, "path %q is not absolute", p.Path)
			}
			if err := s.mayAddress(to); err != nil {
				return nil, err
			}
			f, err := s.c.Engine.SendFile(ctx, to, p.Path)
			return FileInfo{ID: f.ID.String(), File: f}, err
		}),
		"file.list":   bind(func(context.Context, FileParams) (any, error) { return s.files() }),
		"file.show":   bind(func(_ context.Context, p FileParams) (any, error) { return s.file(p.ID) }),
		"file.accept": word(s.c.Engine.AcceptFile),
		"file.refuse": word(s.c.Engine.RefuseFile),
	}
}

func (s *Server) files() ([]FileInfo, error) {
	all, err := s.c.Engine.Files()
	list := make([]FileInfo, 0, len(all))
	if err != nil {
		return list, err
	}
	err = s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, f := range all {
			c, _ := b.Get(f.Account) // of nobody who is a contact: no name
			list = append(list, FileInfo{f.ID.String(), c.Name, f})
		}
		return nil
	})
	return list, err
}

// file finds a file by the first letters of its id.
func (s *Server) file(word string) (FileInfo, error) {
	all, err := s.files()
	if err != nil {
		return FileInfo{}, err
	}
	found := -1
	for i, f := range all {
		if len(word) >= 6 && len(word) <= len(f.ID) && f.ID[:len(word)] == word {
			if found >= 0 {
				return FileInfo{}, ErrNoFile
			}
			found = i
		}
	}
	if found < 0 {
		return FileInfo{}, ErrNoFile
	}
	return all[found], nil
}

// CallParams are those of the methods of calls to other boxes, and of the audit of those to this one.
type CallParams struct {
	To      string   `json:"to,omitempty"`
	Verb    string   `json:"verb,omitempty"`
	Args    []string `json:"args,omitempty"`
	Text    string   `json:"text,omitempty"`
	Expires int64    `json:"expires_s,omitempty"`
	ID      string   `json:"id,omitempty"`
	Wait    bool     `json:"wait,omitempty"`
	Lines   int      `json:"lines,omitempty"`
}

// callLife is how long a call may be under way unless it says: what is done a week late surprises people.
const callLife = 24 * time.Hour

func (s *Server) callMethods() map[string]Method {
	return map[string]Method{
		"ctl.call": bind(s.call),
		"ctl.show": bind(func(ctx context.Context, p CallParams) (any, error) {
			o, err := s.c.Calls.Wait(ctx, p.ID, p.Wait)
			if ctx.Err() != nil && o.ID != "" {
				return o, nil // not answered yet: it says so itself
			}
			return o, err
		}),
		"ctl.list": bind(func(context.Context, CallParams) (any, error) { return s.c.Calls.List() }),
		"audit.list": bind(func(_ context.Context, p CallParams) (any, error) {
			lines, err := s.c.Audit.Lines(p.Lines)
			size := 0
			for i := len(lines) - 1; i >= 0; i-- { // the newest, as many as a line of signal takes
				if size += 500 + len(fmt.Sprint(lines[i].Args, lines[i].Error)); size > maxListed {
					return lines[i+1:], err
				}
			}
			return lines, err
		}),
	}
}

func (s *Server) call(ctx context.Context, p CallParams) (any, error) {
	to, err := s.account(ctx, p.To)
	if err != nil {
		return nil, err
	}
	if err := s.mayAddress(to); err != nil {
		return nil, err
	}
	body, err := callBody(Call{Verb: p.Verb, Args: p.Args, Text: p.Text})
	if err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "%v", err)
	}
	life := time.Duration(p.Expires) * time.Second
	if life <= 0 {
		life = callLife
	}
	return s.c.Calls.Send(CallOut{To: to, Verb: p.Verb, Args: p.Args, Time: time.Now().UTC()}, func() (MessageID, error) {
		return s.c.Engine.Send(ctx, Outgoing{To: to, Kind: envelope.KindControl, Body: body, Expires: life, Quiet: true})
	})
}

func parseMessageID(s string) (id MessageID, err error) {
	return id, unhex(id[:], s)
}

func parseGroupID(s string) (id envelope.GroupID, err error) {
	if err := unhex(id[:], s); err != nil {
		return id, signal.Errorf(signal.ErrUsage, "group %q: %v", s, err)
	}
	return id, nil
}

func unhex(dst []byte, s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("id %q: %w", s, ErrFormat)
	}
	copy(dst, b)
	return nil
}

// ParseMessage reads what Message.MarshalJSON has written.
func ParseMessage(raw []byte) (Message, error) {
	type plain Message
	v := struct {
		ID    string `json:"id"`
		Group string `json:"group"`
		Text  string `json:"text"`
		*plain
	}{plain: new(plain)}
	if err := json.Unmarshal(raw, &v); err != nil {
		return Message{}, fmt.Errorf("message: %w: %v", ErrFormat, err)
	}
	m := Message(*v.plain)
	var err error
	if m.ID, err = parseMessageID(v.ID); err != nil {
		return m, err
	}
	if v.Group != "" {
		if m.Group, err = parseGroupID(v.Group); err != nil {
			return m, err
		}
	}
	if v.Text != "" {
		m.Body = []byte(v.Text)
	}
	if len(m.Body) > envelope.MaxBody || m.Time.IsZero() || m.State == 0 || m.Kind == 0 {
		return m, fmt.Errorf("message: %w: no time, kind or state, or too long", ErrFormat)
	}
	return m, nil
}
