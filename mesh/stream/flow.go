package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"skywire/mesh/key"
)

// A flow is packets between two programs: kept apart and bounded in length, but neither kept in order nor sent again. A
// stream opens it, ends it, and carries the packets that are too long for anything else:
//
//	DATAGRAM (RFC 9221):    number varint | packet             number is twice the stream's id; odd ones are kept free
//	stream, behind answer:  length u16 | packet | length u16 | packet …
//
// Since each stream has a number already, as in RFC 9298, opening a flow costs no more than opening a stream. A DATAGRAM
// for no flow, or of an odd number, is dropped and counted.

// Flow is packets to and from a service of a node. Send and Receive may run at once, each in one goroutine.
type Flow struct {
	stream *Stream
	number uint64 // of its DATAGRAMs
	queue  flowQueue
}

// newFlow makes a flow of a stream; from here on packets can arrive for it.
func newFlow(s *Stream) *Flow {
	c := s.conn
	f := &Flow{stream: s, number: 2 * uint64(s.quic.StreamID())}
	f.queue.wake = make(chan struct{}, 1)
	f.queue.dropped = &c.endpoint.count.flowDropped
	c.endpoint.count.flows.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows[s.quic.StreamID()] = f
	return f
}

// DialFlow opens a flow to a service of a peer, as Dial opens a stream. ErrNoPackets: the peer knows no flows.
func (e *Endpoint) DialFlow(ctx context.Context, to key.Public, service string, header []byte) (*Flow, error) {
	s, err := e.open(ctx, to, Open{Service: service, Header: header, Packets: true})
	if err != nil {
		return nil, err
	}
	f := s.conn.flow(s.quic.StreamID())
	if f == nil { // the connection ended just now
		s.Close()
		return nil, fmt.Errorf("dial %s: %w", service, ErrLost)
	}
	return f, nil
}

// AcceptFlow takes a flow; it ends as Accept's stream does.
func (in *Incoming) AcceptFlow(reply []byte) (*Flow, error) {
	if !in.packets {
		return nil, ErrKind
	}
	f := newFlow(in.stream) // before the answer: packets follow it at once
	if _, err := in.accept(reply); err != nil {
		return nil, err // the flow goes with the stream
	}
	return f, nil
}

func (c *connection) flow(id quic.StreamID) *Flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flows[id]
}

// Peer, Service, Header and Reply are those of a Stream.
func (f *Flow) Peer() key.Public { return f.stream.Peer() }

// Service see Peer.
func (f *Flow) Service() string { return f.stream.Service() }

// Header see Peer.
func (f *Flow) Header() []byte { return f.stream.Header() }

// Reply see Peer.
func (f *Flow) Reply() []byte { return f.stream.Reply() }

// Close ends the flow at both ends. It may be called more than once, and while Send or Receive runs.
func (f *Flow) Close() error { return f.stream.Close() }

// Reset is Close for a reason.
func (f *Flow) Reset(code uint64) { f.stream.Reset(code) }

// Send sends a packet. It waits while the connection is busy with others, as the path allows, and does not keep b.
func (f *Flow) Send(b []byte) error {
	if len(b) > MaxFlowPacket {
		return ErrPacket
	}
	count := &f.stream.conn.endpoint.count
	var buf [maxPacket]byte
	if quicvarint.Len(f.number)+len(b) <= len(buf) {
		err := f.stream.conn.quic.SendDatagram(AppendPacket(buf[:0], f.number, b))
		if err == nil {
			count.flowSent.Add(1)
			return nil
		}
		var long *quic.DatagramTooLargeError
		if !errors.As(err, &long) {
			return translate(err)
		}
	}
	if err := f.sendInStream(b); err != nil {
		return err
	}
	count.flowSent.Add(1)
	count.flowInStream.Add(1)
	return nil
}

// sendInStream is for what does not fit: late rather than never.
func (f *Flow) sendInStream(b []byte) error {
	var head [2]byte
	binary.BigEndian.PutUint16(head[:], uint16(len(b)))
	if err := f.stream.writeFrame(head[:]); err != nil {
		return err
	}
	return f.stream.writeFrame(b)
}

// receiveInStream takes such packets until the other side ends the flow, and returns why if that was no Close.
func (f *Flow) receiveInStream() error {
	r := streamReader{f.stream}
	var head [2]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			f.queue.close()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			f.queue.close()
			return err
		}
		f.stream.conn.endpoint.count.flowReceived.Add(1)
		f.queue.put(b)
	}
}

// receivePackets hands out the packets of all flows of a connection. It never waits for one of them.
func (c *connection) receivePackets(ctx context.Context) {
	count := &c.endpoint.count
	for {
		b, err := c.quic.ReceiveDatagram(ctx)
		if err != nil {
			return
		}
		number, packet, err := ParsePacket(b)
		var f *Flow
		if err == nil && number&1 == 0 {
			f = c.flow(quic.StreamID(number / 2))
		}
		if f == nil {
			count.flowStray.Add(1)
			continue
		}
		count.flowReceived.Add(1)
		f.queue.put(packet)
	}
}

// ParsePacket parses a DATAGRAM. The packet is part of b.
func ParsePacket(b []byte) (number uint64, packet []byte, err error) {
	number, n, err := quicvarint.Parse(b)
	if err != nil {
		return 0, nil, fmt.Errorf("datagram of %d bytes: %w", len(b), ErrFrame)
	}
	return number, b[n:], nil
}

// AppendPacket appends a DATAGRAM to dst.
func AppendPacket(dst []byte, number uint64, packet []byte) []byte {
	return append(quicvarint.Append(dst, number), packet...)
}
