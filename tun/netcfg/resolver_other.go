//go:build !linux

package netcfg

import (
	"errors"
	"log/slog"
	"net/netip"
)

// resolverChange is what an entry of kindResolver changed.
type resolverChange struct{}

// Resolver is the box's resolver; here it is never changed.
type Resolver struct{}

// OpenResolver returns errors.ErrUnsupported.
func OpenResolver(Config) (*Resolver, error) { return nil, errors.ErrUnsupported }

func (*Resolver) Backend() (name, why string)    { return BackNone, "" }
func (*Resolver) Whole() bool                    { return false }
func (*Resolver) Set(Resolving) error            { return errors.ErrUnsupported }
func (*Resolver) Check() (changed bool, _ error) { return false, nil }
func (*Resolver) Close() error                   { return nil }

// ResolverBackend is none that can be told.
func ResolverBackend() string { return BackNone }

// SystemResolvers knows none here.
func SystemResolvers() []netip.AddrPort { return nil }

// ResolverLeftovers are none: nothing is changed here.
func ResolverLeftovers(string) []string { return nil }

// RepairResolver has nothing to do.
func RepairResolver(string, *slog.Logger) error { return nil }
