package app

import (
	"context"
	"net/netip"

	"skywire/mesh/key"
)

// Names is what a name server may say of a node: the result of node.lookup.
type Names struct {
	Key      key.Public `json:"key"`
	Name     string     `json:"name,omitempty"` // petname, else the certificate's
	Address  netip.Addr `json:"address"`
	IPv4     netip.Addr `json:"ipv4,omitzero"` // certified
	Services []Service  `json:"services,omitempty"`
}

// Lookup finds who has a name for certain: by petname, certificate, or as the key itself; never by what a node calls
// itself. Resolve is for people, who see what they get.
func (c *Client) Lookup(ctx context.Context, name string) (n Names, err error) {
	err = c.Call(ctx, "node.lookup", map[string]string{"name": name}, &n)
	return n, err
}

// LookupAddr finds who has a mesh address, or an IPv4 address by its certificate.
func (c *Client) LookupAddr(ctx context.Context, a netip.Addr) (n Names, err error) {
	err = c.Call(ctx, "node.lookup", map[string]netip.Addr{"address": a}, &n)
	return n, err
}
