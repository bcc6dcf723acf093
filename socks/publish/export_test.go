package publish

import (
	"context"
	"net"
	"net/netip"
)

// AppendProxyHeader is what backends get.
var AppendProxyHeader = appendProxyHeader

// NewFinderOf is NewFinder without a client.
func NewFinderOf(n Names, prefix netip.Prefix) *Finder { return &Finder{names: n, prefix: prefix} }

// Relay runs a relay of packets until its socket is closed.
func Relay(ctx context.Context, socket net.PacketConn, dial func(ctx context.Context, from net.Addr) (net.Conn, func(), error)) {
	newUDPRelay(socket, dial).run(ctx)
}
