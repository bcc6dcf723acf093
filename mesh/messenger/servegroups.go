package messenger

import (
	"context"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// grouper is what the methods of groups ask of an Engine.
type grouper interface {
	GroupOps(id envelope.GroupID) ([][]byte, error)
	Groups() []GroupInfo
	CreateGroup(ctx context.Context, name string, members []key.Public) (envelope.GroupID, error)
	GroupAdd(ctx context.Context, id envelope.GroupID, account key.Public) error
	GroupRemove(ctx context.Context, id envelope.GroupID, account key.Public) error
	GroupAdmin(ctx context.Context, id envelope.GroupID, account key.Public, on bool) error
	GroupRename(ctx context.Context, id envelope.GroupID, name string) error
	GroupLeave(ctx context.Context, id envelope.GroupID) error
	GroupSend(ctx context.Context, id envelope.GroupID, body []byte) (MessageID, error)
}

// GroupParams are those of the methods of groups.
type GroupParams struct {
	Group string   `json:"group,omitempty"` // its id, the first letters of it, or its name
	Name  string   `json:"name,omitempty"`
	Who   []string `json:"who,omitempty"`
	Off   bool     `json:"off,omitempty"`
	Text  string   `json:"text,omitempty"`
}

// ShownMember is a member as the socket shows it.
type ShownMember struct {
	GroupMember
	Name string `json:"name,omitempty"` // ours for it
}

// ShownGroup is a group as the socket shows it.
type ShownGroup struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Members    []ShownMember `json:"members"`
	Epoch      string        `json:"epoch"`
	Generation uint32        `json:"generation"`
	Changes    int           `json:"changes"`
	Member     bool          `json:"member"`
	Admin      bool          `json:"admin"`
}

func (s *Server) groupMethods() map[string]Method {
	g, ok := s.c.Engine.(grouper)
	if !ok {
		return nil
	}
	in := func(do func(ctx context.Context, id envelope.GroupID, p GroupParams) error) Method {
		return bind(func(ctx context.Context, p GroupParams) (any, error) {
			id, err := findGroup(g.Groups(), p.Group)
			if err == nil {
				err = do(ctx, id, p)
			}
			if err != nil {
				return nil, err
			}
			return s.shownGroup(g, id)
		})
	}
	each := func(do func(ctx context.Context, id envelope.GroupID, account key.Public, p GroupParams) error) Method {
		return in(func(ctx context.Context, id envelope.GroupID, p GroupParams) error {
			all, err := s.accounts(ctx, p.Who)
			if err == nil && len(all) == 0 {
				err = signal.Errorf(signal.ErrUsage, "whom?")
			}
			for _, k := range all {
				if err == nil {
					err = do(ctx, id, k, p)
				}
			}
			return err
		})
	}
	return map[string]Method{
		"group.export": bind(func(_ context.Context, p GroupParams) (any, error) {
			id, err := findGroup(g.Groups(), p.Group)
			if err != nil {
				return nil, err
			}
			ops, err := g.GroupOps(id)
			return ExportedGroup{ID: id.String(), Ops: ops}, err
		}),
		"group.list": bind(func(context.Context, struct{}) (any, error) { return s.shownGroups(g.Groups()) }),
		"group.show": in(func(context.Context, envelope.GroupID, GroupParams) error { return nil }),
		"group.create": bind(func(ctx context.Context, p GroupParams) (any, error) {
			all, err := s.accounts(ctx, p.Who)
			if err != nil {
				return nil, err
			}
			id, err := g.CreateGroup(ctx, p.Name, all)
			if err != nil {
				return nil, err
			}
			return s.shownGroup(g, id)
		}),
		"group.add": each(func(ctx context.Context, id envelope.GroupID, k key.Public, _ GroupParams) error {
			return g.GroupAdd(ctx, id, k)
		}),
		"group.remove": each(func(ctx context.Context, id envelope.GroupID, k key.Public, _ GroupParams) error {
			return g.GroupRemove(ctx, id, k)
		}),
		"group.admin": each(func(ctx context.Context, id envelope.GroupID, k key.Public, p GroupParams) error {
			return g.GroupAdmin(ctx, id, k, !p.Off)
		}),
		"group.rename": in(func(ctx context.Context, id envelope.GroupID, p GroupParams) error {
			return g.GroupRename(ctx, id, p.Name)
		}),
		"group.leave": in(func(ctx context.Context, id envelope.GroupID, _ GroupParams) error { return g.GroupLeave(ctx, id) }),
		"group.send": bind(func(ctx context.Context, p GroupParams) (any, error) {
			id, err := findGroup(g.Groups(), p.Group)
			if err != nil {
				return nil, err
			}
			if p.Text == "" {
				return nil, signal.Errorf(signal.ErrUsage, "no text")
			}
			m, err := g.GroupSend(ctx, id, []byte(p.Text))
			return IDResult{ID: m.String()}, err
		}),
	}
}

func (s *Server) accounts(ctx context.Context, words []string) (all []key.Public, err error) {
	for _, w := range words {
		k, err := s.account(ctx, w)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// findGroup finds a group by its id, the first four letters of it or more, or its name. A name or a beginning that fits more than
// one names none.
func findGroup(all []GroupInfo, word string) (id envelope.GroupID, err error) {
	found := 0
	for _, g := range all {
		if g.Name == word || len(word) >= 4 && strings.HasPrefix(g.ID.String(), strings.ToLower(word)) {
			id = g.ID
			found++
		}
	}
	switch {
	case word == "":
		return id, signal.Errorf(signal.ErrUsage, "which group?")
	case found > 1:
		return id, signal.Errorf(signal.ErrUsage, "%q names %d groups; messenger group list shows their ids", word, found)
	case found == 0:
		return id, ErrNoGroup
	}
	return id, nil
}

func (s *Server) shownGroup(g grouper, id envelope.GroupID) (any, error) {
	for _, v := range g.Groups() {
		if v.ID == id {
			all, err := s.shownGroups([]GroupInfo{v})
			if err != nil {
				return nil, err
			}
			return all[0], nil
		}
	}
	return nil, ErrNoGroup
}

func (s *Server) shownGroups(all []GroupInfo) (shown []ShownGroup, err error) {
	shown = []ShownGroup{}
	err = s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, g := range all {
			v := ShownGroup{
				ID: g.ID.String(), Name: g.Name, Members: []ShownMember{}, Epoch: g.Epoch, Generation: g.Generation, Changes: g.Changes,
				Member: g.Member, Admin: g.Admin,
			}
			for _, m := range g.Members {
				c, _ := b.Get(m.Account) // members need not be contacts
				v.Members = append(v.Members, ShownMember{m, c.Name})
			}
			shown = append(shown, v)
		}
		return nil
	})
	return shown, err
}
