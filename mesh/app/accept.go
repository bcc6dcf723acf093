package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"skywire/mesh/key"
)

// acceptPause is the wait after a stream that could not be taken: the node may be away, and comes back.
const acceptPause = time.Second

// StreamSource is where ServeStreams has streams from; *Client is one.
type StreamSource interface {
	// AcceptStream waits for the next stream to a service of ours, and takes it.
	AcceptStream(ctx context.Context, service string) (peer key.Public, rw io.ReadWriteCloser, err error)
}

// AcceptStream implements StreamSource: it takes whoever the service's allow list lets in, without a word in reply.
func (c *Client) AcceptStream(ctx context.Context, service string) (key.Public, io.ReadWriteCloser, error) {
	in, err := c.Accept(ctx, service)
	if err != nil {
		return key.Public{}, nil, err
	}
	conn, err := in.Accept(nil)
	return in.Peer, conn, err
}

// ServeStreams hands the streams of a service to serve, one after the other, until ctx ends or the client is closed. serve
// owns the stream, and must not block.
func ServeStreams(ctx context.Context, from StreamSource, service string, log *slog.Logger, serve func(peer key.Public, rw io.ReadWriteCloser)) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		peer, rw, err := from.AcceptStream(ctx, service)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				rw.Close()
			}
			return nil
		case errors.Is(err, ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil:
			log.Warn("stream not accepted", "err", err)
			wait.Reset(acceptPause)
		default:
			serve(peer, rw)
			wait.Reset(0)
		}
	}
}
