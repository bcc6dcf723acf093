package messenger

import (
	"context"
	"time"
)

// StatementParams are those of the methods of statements.
type StatementParams struct {
	ID string `json:"id,omitempty"` // whole, or its first letters
}

// StatementInfo is a statement as the socket shows it.
type StatementInfo struct {
	With string `json:"with,omitempty"` // our name for the account
	Statement
}

func (s *Server) statementMethods() map[string]Method {
	one := func(do func(word string) (Statement, error)) Method {
		return bind(func(_ context.Context, p StatementParams) (any, error) {
			x, err := do(p.ID)
			if err != nil {
				return nil, err
			}
			all, err := s.whose([]Statement{x})
			if err != nil {
				return nil, err
			}
			return all[0], nil
		})
	}
	return map[string]Method{
		"statement.list": bind(func(context.Context, StatementParams) (any, error) {
			all, err := s.c.Ledger.List()
			if err != nil {
				return nil, err
			}
			return s.whose(all)
		}),
		"statement.show": one(func(word string) (Statement, error) { return s.c.Ledger.Show(word) }),
		"statement.drop": one(func(word string) (Statement, error) { return s.c.Ledger.Drop(word) }),
	}
}

// whose adds our names.
func (s *Server) whose(all []Statement) ([]StatementInfo, error) {
	list := make([]StatementInfo, 0, len(all))
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, x := range all {
			c, _ := b.Get(x.Account) // of nobody who is a contact: no name
			list = append(list, StatementInfo{c.Name, x})
		}
		return nil
	})
	return list, err
}
