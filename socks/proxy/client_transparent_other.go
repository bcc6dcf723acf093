//go:build !linux

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// newTransparent is of Linux alone: the ways of other kernels are not known here.
func newTransparent(context.Context, string) (*transparent, error) {
	return nil, fmt.Errorf("on this system: %w", errors.ErrUnsupported)
}

func (t *transparent) target(Stream) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.ErrUnsupported
}

func listenAs(context.Context, netip.AddrPort) (*net.UDPConn, error) {
	return nil, errors.ErrUnsupported
}

func readDiverted(*net.UDPConn, []byte, []byte) (n int, from, to netip.AddrPort, err error) {
	return 0, from, to, errors.ErrUnsupported
}
