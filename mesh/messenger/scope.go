package messenger

import "fmt"

// Scope is what somebody may ask of a box; each includes those before it. The words are those of viscript.
type Scope uint8

// The scopes.
const (
	ScopeNone Scope = iota
	ScopeRead
	ScopeOperate
	ScopeAdmin
)

func (s Scope) String() string {
	if s > ScopeAdmin {
		return "none"
	}
	return [...]string{"none", "read", "operate", "admin"}[s]
}

// ParseScope reads a scope.
func ParseScope(word string) (Scope, error) {
	for s := ScopeNone; s <= ScopeAdmin; s++ {
		if s.String() == word {
			return s, nil
		}
	}
	return ScopeNone, fmt.Errorf("scope %q: %w: none, read, operate or admin", word, ErrFormat)
}

// MarshalText implements encoding.TextMarshaler.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Scope) UnmarshalText(b []byte) (err error) {
	*s, err = ParseScope(string(b))
	return err
}
