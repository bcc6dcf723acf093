//go:build !linux

package netcfg

import (
	"errors"
	"net/netip"
)

// DefaultMark is the mark of the mesh's own packets, where packets have marks.
const DefaultMark = 0x5357

// SetKillSwitch returns errors.ErrUnsupported.
func SetKillSwitch(KillSwitch) error { return errors.ErrUnsupported }

// ReleaseKillSwitch returns errors.ErrUnsupported.
func ReleaseKillSwitch() error { return errors.ErrUnsupported }

// KillSwitchState returns errors.ErrUnsupported.
func KillSwitchState() (Locked, error) { return Locked{}, errors.ErrUnsupported }

// Gateways returns errors.ErrUnsupported.
func Gateways() ([]netip.Addr, error) { return nil, errors.ErrUnsupported }

// Hold returns errors.ErrUnsupported.
func (*Net) Hold(string, uint32, []netip.Prefix) error { return errors.ErrUnsupported }
