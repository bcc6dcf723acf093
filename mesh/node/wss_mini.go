//go:build mini

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
)

var errNoWSS = fmt.Errorf("wss and ws are not in this small build (tag mini): %w", errors.ErrUnsupported)

func (c *carriers) wssClient(address, *url.URL) func(context.Context, net.Conn) (net.Conn, error) {
	return func(_ context.Context, conn net.Conn) (net.Conn, error) {
		return nil, errors.Join(errNoWSS, conn.Close())
	}
}

func wssServer(address) (func(net.Conn) (net.Conn, error), error) { return nil, errNoWSS }

func wssProxy(string) (*url.URL, error) { return nil, errNoWSS }
