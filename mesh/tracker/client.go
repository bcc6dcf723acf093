package tracker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// Client asks a tracker.
type Client struct {
	conn *signal.Conn
	done chan struct{} // closed when the connection has ended
}

// NewClient speaks over rw and owns it.
func NewClient(rw io.ReadWriteCloser) *Client {
	c := &Client{conn: signal.NewConn(rw, nil), done: make(chan struct{})}
	go func() { // ends with Close or with the peer; Close waits for it
		defer close(c.done)
		_ = c.conn.Run(context.Background())
	}()
	return c
}

// Dial reaches the tracker of a node over the mesh.
func Dial(ctx context.Context, a *app.Client, tracker key.Public) (*Client, error) {
	s, err := a.Dial(ctx, tracker, ServiceName, nil)
	if err != nil {
		return nil, err
	}
	return NewClient(s), nil
}

// DialTCP reaches a tracker at host:port.
func DialTCP(ctx context.Context, addr string) (*Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewClient(c), nil
}

// Close ends the connection.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Put announces services of this node, over the mesh.
func (c *Client) Put(ctx context.Context, services []Service) error {
	return c.conn.Call(ctx, MethodPut, PutParams{Services: services}, nil)
}

// PutRecord announces the services of a signed record.
func (c *Client) PutRecord(ctx context.Context, raw []byte) error {
	return c.conn.Call(ctx, MethodPut, PutParams{Record: raw}, nil)
}

// List returns the live entries of one type, or all.
func (c *Client) List(ctx context.Context, kind string) ([]Entry, error) {
	return Pages(func(p ListParams, page *[]Entry) error { return c.conn.Call(ctx, MethodList, p, page) }, kind)
}

// maxPages bounds what a tracker can make a client gather.
const maxPages = MaxNodes * 32 / MaxList

// Pages gathers the answers to one question.
func Pages(ask func(ListParams, *[]Entry) error, kind string) ([]Entry, error) {
	all := []Entry{}
	for range maxPages {
		var page []Entry
		if err := ask(ListParams{Type: kind, Offset: len(all)}, &page); err != nil {
			return nil, fmt.Errorf("%s: %w", MethodList, err)
		}
		for i, e := range page { // a tracker that checks nothing must not reach our terminal
			if err := check([]Service{e.Service}); err != nil {
				return nil, fmt.Errorf("%s: entry %d: %w", MethodList, len(all)+i, err)
			}
		}
		if all = append(all, page...); len(page) < MaxList {
			break
		}
	}
	return all, nil
}

// Waiting of Announce after a failure.
const (
	retryFirst = time.Second
	retryMost  = Renew
)

// Announce keeps services in a tracker until ctx ends: it renews them and dials again when the tracker was away.
func Announce(ctx context.Context, dial func(context.Context) (*Client, error), services []Service, log *slog.Logger) {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		renewed, err := announce(ctx, dial, services)
		if ctx.Err() != nil {
			return
		}
		if renewed {
			wait = retryFirst
		}
		log.Debug("tracker away", "err", err)
		if !pause(ctx, wait/2+rand.N(wait)) {
			return
		}
	}
}

func announce(ctx context.Context, dial func(context.Context) (*Client, error), services []Service) (renewed bool, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, callTimeout)
	c, err := dial(dialCtx)
	cancel()
	if err != nil {
		return false, err
	}
	defer c.Close()
	for {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		err := c.Put(callCtx, services)
		cancel()
		if err != nil {
			return renewed, err
		}
		if renewed = true; !pause(ctx, Renew) {
			return renewed, ctx.Err()
		}
	}
}
