//go:build !linux

package netcfg

import (
	"errors"
	"net/netip"
	"time"
)

// Split returns errors.ErrUnsupported.
func (*Net) Split(string, Split, []netip.Addr) error { return errors.ErrUnsupported }

// Resolved returns errors.ErrUnsupported.
func Resolved(string, []netip.Addr, time.Duration) error { return errors.ErrUnsupported }
