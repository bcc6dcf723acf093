package stream

import (
	"net"
	"sync/atomic"
	"testing"
)

// discard is a program that reads everything.
type discard struct {
	net.Conn
	bytes int
}

func (d *discard) Write(b []byte) (int, error) {
	d.bytes += len(b)
	return len(b), nil
}

// TestFlowAllocatesNothing: what arrives goes to the program without memory of ours. White-box: quic-go, which allocates at
// both ends of every DATAGRAM, can't be left out otherwise.
func TestFlowAllocatesNothing(t *testing.T) {
	q := flowQueue{wake: make(chan struct{}, 1), dropped: new(atomic.Uint64)}
	program := &discard{}
	p := &flowPump{conn: program, framed: true}
	packet := make([]byte, 1000)
	batch := make([][]byte, 0, flowBatch)
	if n := testing.AllocsPerRun(1000, func() {
		for range 10 {
			q.put(packet)
		}
		if err := p.write(q.get(batch)); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for ten packets, want none", n)
	}
	if program.bytes%10020 != 0 || program.bytes == 0 {
		t.Errorf("%d bytes reached the program", program.bytes)
	}
}
