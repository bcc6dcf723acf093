//go:build !mini

package node

import (
	"context"
	"net"
	"net/url"

	"skywire/mesh/link/wss"
)

// wssClient returns what speaks WebSocket on a connection that was dialled.
func (c *carriers) wssClient(a address, proxy *url.URL) func(context.Context, net.Conn) (net.Conn, error) {
	t := wss.Target{Secure: a.scheme == "wss", Host: a.host, Port: a.port, Path: a.path, SNI: c.n.cfg.Carriers.SNI, Proxy: proxy}
	return func(ctx context.Context, conn net.Conn) (net.Conn, error) { return wss.Client(ctx, conn, t) }
}

// wssServer returns what speaks it on a connection that was accepted.
func wssServer(a address) (func(net.Conn) (net.Conn, error), error) {
	s, err := wss.NewServer(a.path, a.scheme == "wss")
	if err != nil {
		return nil, err
	}
	return s.Upgrade, nil
}

func wssProxy(text string) (*url.URL, error) { return wss.Proxy(text) }
