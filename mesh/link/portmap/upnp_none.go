//go:build !web && (mips || mipsle || mini)

package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// upnpGrant can't: UPnP needs an HTTP client, which would take a megabyte of a small router's flash.
func upnpGrant(context.Context, *client, netip.AddrPort, time.Duration) (netip.AddrPort, time.Duration, error) {
	return netip.AddrPort{}, 0, fmt.Errorf("left out of this small build: %w", errors.ErrUnsupported)
}
