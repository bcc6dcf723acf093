//go:build !linux

package publish

import "errors"

// bindToDevice is not known here; without it a neighbour on the LAN could send packets that seem to come by the vpn.
func bindToDevice(uintptr, string) error { return errors.ErrUnsupported }
