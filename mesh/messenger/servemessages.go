package messenger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// MsgParams are those of all methods of messages.
type MsgParams struct {
	To      string   `json:"to,omitempty"`
	Text    string   `json:"text,omitempty"`
	Expires int64    `json:"expires_s,omitempty"`
	ID      string   `json:"id,omitempty"` // whole, or the first 8 letters or more
	IDs     []string `json:"ids,omitempty"`
	State   State    `json:"state,omitempty"`
	With    string   `json:"with,omitempty"`
	Group   string   `json:"group,omitempty"`
	After   uint64   `json:"after,omitempty"`
	Before  uint64   `json:"before,omitempty"`
	Last    bool     `json:"last,omitempty"`
	Limit   int      `json:"limit,omitempty"`
	Unread  bool     `json:"unread,omitempty"`
	Receive bool     `json:"receive,omitempty"`
	Follow  bool     `json:"follow,omitempty"`
	// Now begins a tail behind what there is.
	Now bool `json:"now,omitempty"`
	// Queued lists only what is ours and no device has yet.
	Queued bool `json:"queued,omitempty"`
}

// IDResult names what was made.
type IDResult struct {
	ID string `json:"id"`
}

func (s *Server) messageMethods() map[string]Method {
	one := func(do func(ctx context.Context, id MessageID, p MsgParams) (any, error)) Method {
		return bind(func(ctx context.Context, p MsgParams) (any, error) {
			id, err := s.message(ctx, p.ID)
			if err != nil {
				return nil, err
			}
			return do(ctx, id, p)
		})
	}
	return map[string]Method{
		"msg.send": bind(s.send),
		"msg.wait": one(func(ctx context.Context, id MessageID, p MsgParams) (any, error) {
			m, err := s.c.Engine.Wait(ctx, id, p.State)
			if m.State == Failed { // that it failed, and why, is the answer
				err = nil
			}
			return s.named(m, err)
		}),
		"msg.show": one(func(_ context.Context, id MessageID, _ MsgParams) (any, error) {
			return s.named(s.c.Engine.Message(id))
		}),
		"msg.cancel": one(func(_ context.Context, id MessageID, _ MsgParams) (any, error) {
			if err := s.c.Engine.Cancel(id); err != nil {
				return nil, err
			}
			return s.named(s.c.Engine.Message(id))
		}),
		"msg.list":          bind(s.list),
		"msg.read":          bind(s.read),
		"messenger.import":  bind(s.take),
		"messenger.status":  bind(s.status),
		"messenger.devices": bind(s.devices),
		"messenger.id":      bind(s.id),
	}
}

func (s *Server) send(ctx context.Context, p MsgParams) (any, error) {
	to, err := s.account(ctx, p.To)
	if err != nil {
		return nil, err
	}
	if p.Text == "" || len(p.Text) > envelope.MaxBody {
		return nil, signal.Errorf(signal.ErrUsage, "a text has 1 to %d bytes, this one %d; longer ones go as a file: messenger file", envelope.MaxBody, len(p.Text))
	}
	if err := s.mayAddress(to); err != nil {
		return nil, err
	}
	id, err := s.c.Engine.Send(ctx, Outgoing{
		To: to, Kind: envelope.KindText, Body: []byte(p.Text), Expires: time.Duration(p.Expires) * time.Second,
	})
	return IDResult{id.String()}, err
}

// message finds a message by the first letters of its id.
func (s *Server) message(ctx context.Context, word string) (id MessageID, err error) {
	word = strings.ToLower(word)
	if raw := len(word) == 2*len(id); raw {
		if id, err := parseMessageID(word); err == nil {
			_, err := s.c.Engine.Message(id)
			return id, err
		}
	}
	if len(word) < 6 {
		return id, fmt.Errorf("id %q: %w", word, ErrNoMessage)
	}
	found := 0
	for before := uint64(0); ; {
		page, err := s.c.Engine.Messages(ctx, Query{Before: before, Last: true, Limit: 1000})
		if err != nil {
			return id, err
		}
		for _, m := range page {
			if strings.HasPrefix(m.ID.String(), word) {
				id, found = m.ID, found+1
			}
		}
		if len(page) == 0 || page[0].Cursor <= 1 {
			break
		}
		before = page[0].Cursor
	}
	if found != 1 {
		return id, fmt.Errorf("id %q: %w", word, ErrNoMessage)
	}
	return id, nil
}

func (s *Server) query(ctx context.Context, p MsgParams) (q Query, err error) {
	q = Query{After: p.After, Before: p.Before, Last: p.Last, Limit: p.Limit, Unread: p.Unread, Receive: p.Receive}
	if p.With != "" {
		q.With, err = s.account(ctx, p.With)
	}
	if p.Group != "" && err == nil {
		q.Group, err = parseGroupID(p.Group)
	}
	return q, err
}

// maxListed keeps an answer below a line of signal: a body may have 48 KiB.
const maxListed = 600 << 10

func (s *Server) list(ctx context.Context, p MsgParams) (any, error) {
	q, err := s.query(ctx, p)
	if err != nil {
		return nil, err
	}
	page, err := s.c.Engine.Messages(ctx, q)
	if err != nil {
		return nil, err
	}
	if p.Queued {
		page = slices.DeleteFunc(page, func(m Message) bool { return m.State != Queued && m.State != Sent && m.State != Stored })
	}
	if q.Last {
		return s.shown(page[len(page)-fits(page, true):])
	}
	return s.shown(page[:fits(page, false)])
}

// shown are messages as the socket shows them: with our name for who it is, beside the key.
func (s *Server) shown(page []Message) ([]json.RawMessage, error) {
	names, groups := map[key.Public]string{}, map[envelope.GroupID]string{}
	if g, ok := s.c.Engine.(interface {
		GroupNames() map[envelope.GroupID]string
	}); ok {
		groups = g.GroupNames()
	}
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, m := range page {
			if c, err := b.Get(m.Account); err == nil && c.Name != "" {
				names[m.Account] = c.Name
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]json.RawMessage, 0, len(page))
	for _, m := range page {
		raw, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		if name := names[m.Account]; name != "" { // a name has no letter that JSON would escape
			raw = append([]byte(`{"name":"`+name+`",`), raw[1:]...)
		}
		if name := groups[m.Group]; name != "" { // this one has
			quoted, err := json.Marshal(name)
			if err != nil {
				return nil, err
			}
			raw = append(append(append([]byte(`{"group_name":`), quoted...), ','), raw[1:]...)
		}
		all = append(all, raw)
	}
	return all, nil
}

// named is shown for one.
func (s *Server) named(m Message, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	all, err := s.shown([]Message{m})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// fits returns how many messages go into one line, from the front or from the end.
func fits(page []Message, back bool) int {
	size := 0
	for i := range page {
		m := page[i]
		if back {
			m = page[len(page)-1-i]
		}
		if size += len(m.Body)*3/2 + 600; size > maxListed && i > 0 {
			return i
		}
	}
	return len(page)
}

// tail sends messages as notifications "msg.lines", from a cursor on, and with follow those that come, until the caller gives up.
func (s *Server) tail(ctx context.Context, r *signal.Request) error {
	var p MsgParams
	if err := r.Bind(&p); err != nil {
		return err
	}
	q, err := s.query(ctx, p)
	if err != nil {
		return err
	}
	q.Last, q.Before, q.Limit = false, 0, 200
	if p.Now {
		end, err := s.c.Engine.Messages(ctx, Query{Last: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(end) > 0 {
			q.After = end[0].Cursor
		}
	}
	for {
		changed := s.c.Engine.Changed()
		page, err := s.c.Engine.Messages(ctx, q)
		if err != nil {
			return err
		}
		for len(page) > 0 {
			n := fits(page, false)
			lines, err := s.shown(page[:n])
			if err != nil {
				return err
			}
			if err := r.Conn.Notify("msg.lines", lines); err != nil {
				return err
			}
			q.After, page = page[n-1].Cursor, page[n:]
			if len(page) == 0 {
				if page, err = s.c.Engine.Messages(ctx, q); err != nil {
					return err
				}
			}
		}
		if !p.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// CountResult says how many.
type CountResult struct {
	Count int `json:"count"`
}

// read marks messages, by id or all of a contact's.
func (s *Server) read(ctx context.Context, p MsgParams) (any, error) {
	var ids []MessageID
	for _, word := range p.IDs {
		id, err := s.message(ctx, word)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if len(p.IDs) == 0 {
		q, err := s.query(ctx, MsgParams{With: p.With, Group: p.Group, Unread: true, Limit: 1000})
		if err != nil {
			return nil, err
		}
		page, err := s.c.Engine.Messages(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return CountResult{}, nil
	}
	return CountResult{len(ids)}, s.c.Engine.MarkRead(ids)
}
