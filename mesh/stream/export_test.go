package stream

import (
	"context"

	"skywire/mesh/key"
)

// OpenRaw opens a stream without a first frame, as a hostile peer may.
func (e *Endpoint) OpenRaw(ctx context.Context, to key.Public) (*Stream, error) {
	<-e.started
	c, _, err := e.connect(ctx, e.peer(to))
	if err != nil {
		return nil, err
	}
	qs, err := c.quic.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return newStream(c, qs, true), nil
}
