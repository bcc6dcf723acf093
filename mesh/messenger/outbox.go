package messenger

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"skywire/mesh/messenger/envelope"
)

// outbox is what waits to be written to one link. Windows bound it, but for one who asks and never reads.
type outbox struct {
	conn  net.Conn
	ready chan struct{}

	mu     sync.Mutex // guards the fields below
	frames []effect
	bytes  int
	closed bool
}

func (o *outbox) push(e effect) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.frame == nil || o.bytes > maxOutbox {
		o.closed = true
	} else if !o.closed {
		o.frames = append(o.frames, e)
		o.bytes += len(e.frame)
	}
	poke(o.ready)
}

func (o *outbox) pop() (all []effect, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all, o.frames, o.bytes = o.frames, nil, 0
	return all, o.closed
}

func (o *outbox) write(ctx context.Context) {
	for {
		select {
		case <-o.ready:
		case <-ctx.Done():
			return
		}
		all, closed := o.pop()
		for _, x := range all {
			if x.stamp > 0 {
				if err := envelope.Stamp(ctx, x.frame[5:], int(x.stamp)); err != nil {
					return
				}
			}
			b := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(x.frame)), uint32(len(x.frame))), x.frame...)
			o.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := o.conn.Write(b); err != nil {
				return
			}
		}
		if closed {
			return
		}
	}
}
