//go:build !linux

package meshtcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Available tells whether connections can be had: on Linux alone.
func (o Opener) Available() error { return errors.ErrUnsupported }

// Listen listens on a port of the kernel's choice.
func (o Opener) Listen(context.Context) (net.Listener, error) { return nil, errors.ErrUnsupported }

// Dial connects.
func (o Opener) Dial(context.Context, netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
