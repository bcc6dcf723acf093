package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"skywire/signal"
)

// unixPrefix marks a place to listen on that is a path.
const unixPrefix = "unix:"

// checkListen refuses to be an open proxy by accident.
func checkListen(c ClientConfig) error {
	for _, at := range strings.Split(c.Listen, ",") {
		if path, ok := strings.CutPrefix(at, unixPrefix); ok {
			if path == "" {
				return fmt.Errorf("listen on %q: want unix:PATH", at)
			}
			continue // the file's mode decides
		}
		host, _, err := net.SplitHostPort(at)
		if err != nil {
			return fmt.Errorf("listen on %q: want HOST:PORT or unix:PATH: %w", at, err)
		}
		if c.Open || c.Credentials.Required() || host == "localhost" {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
			continue
		}
		return fmt.Errorf("listen on %s: %w", at, ErrExposed)
	}
	return nil
}

// listener is one place where programs come from.
type listener struct {
	net.Listener
	diverted *transparent // nil: programs that know of the proxy
}

// listen opens all places, or none.
func (c *Client) listen(ctx context.Context) (all []listener, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	if c.c.Listener != nil {
		all = append(all, listener{Listener: c.c.Listener})
	} else {
		for _, at := range strings.Split(c.c.Listen, ",") {
			l, err := c.listenAt(ctx, at)
			if err != nil {
				return all, err
			}
			all = append(all, listener{Listener: l})
		}
	}
	if c.c.Transparent == "" {
		return all, nil
	}
	t, err := newTransparent(ctx, c.c.Transparent)
	if err != nil {
		return all, fmt.Errorf("listen for diverted connections (%s): %w", c.c.Transparent, err)
	}
	return append(all, listener{t.tcp, t}), nil
}

func (c *Client) listenAt(ctx context.Context, at string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(at, unixPrefix); ok {
		mode := os.FileMode(0o600)
		if c.c.Open {
			mode = 0o666
		}
		l, err := signal.Listen(path, mode)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", at, err)
		}
		return l, nil
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, explainListen(at, err)
	}
	return l, nil
}

func closeAll(all []listener) {
	for _, l := range all {
		l.Close()
	}
}

// run accepts until ctx ends.
func (l *listener) run(ctx context.Context, c *Client, wg *sync.WaitGroup) error {
	serve := c.serve
	if l.diverted != nil {
		serve = func(ctx context.Context, s Stream) { c.serveDiverted(ctx, l.diverted, s) }
		wg.Go(func() { c.divertedPackets(ctx, l.diverted) })
	}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listen on %s: %w", l.Addr(), err)
		}
		if err != nil { // out of descriptors, or a program that was gone before we looked
			c.c.Log.Warn("connection not accepted", "err", err)
			pause(ctx, acceptPause)
			continue
		}
		s, ok := conn.(Stream)
		if !ok {
			conn.Close()
			return fmt.Errorf("listen on %s: neither TCP nor a unix socket", l.Addr())
		}
		c.admit(ctx, wg, s, serve)
	}
}
