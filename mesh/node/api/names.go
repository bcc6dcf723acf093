package api

import (
	"context"
	"net/netip"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// Namer says who is called what.
type Namer interface {
	// Lookup finds who has a name or an address for certain, see app.Client.Lookup.
	Lookup(ctx context.Context, p LookupParams) (app.Names, error)
	// Petnames is in order of the names.
	Petnames(ctx context.Context) ([]Petname, error)
	// SetPetname gives k a name; the zero key takes the name back.
	SetPetname(ctx context.Context, name string, k key.Public) error
}

// LookupParams is node.lookup: one of the two.
type LookupParams struct {
	Name    string     `json:"name,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
}

// Petname is a name that the owner of this box gave to a key, one element of node.petnames.
type Petname struct {
	Name  string     `json:"name"`
	Key   key.Public `json:"key"`
	Fixed bool       `json:"fixed"` // in the configuration, so it can be changed there alone
}

// PetnameParams is petname.add and petname.remove, which needs no key.
type PetnameParams struct {
	Name string `json:"name"`
	Key  string `json:"key,omitempty"` // any form that Resolve takes
}

// nameTable is the methods of names.
func (s *Server) nameTable() map[string]method {
	return map[string]method{
		"node.lookup": {anyone, func(ctx context.Context, c *call) (any, error) {
			var p LookupParams
			if err := c.Bind(&p); err != nil {
				return nil, err
			}
			return s.node.Lookup(ctx, p)
		}},
		"node.petnames":  {anyone, list(s.node.Petnames)},
		"petname.add":    {operator, s.setPetname(true)},
		"petname.remove": {operator, s.setPetname(false)},
	}
}

func (s *Server) setPetname(add bool) func(ctx context.Context, c *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		var p PetnameParams
		err := c.Bind(&p)
		if err == nil && add == (p.Key == "") {
			err = signal.Errorf(signal.ErrUsage, "petname.add wants a key, petname.remove none")
		}
		var k key.Public
		if err == nil && add {
			k, err = s.lookup(ctx, p.Key)
		}
		if err != nil {
			return nil, err
		}
		return KeyResult{k}, s.node.SetPetname(ctx, p.Name, k)
	}
}
