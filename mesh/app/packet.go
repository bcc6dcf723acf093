package app

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// MaxPacket is the longest packet of a flow.
const MaxPacket = 65507

// Published tells whether a service of this type is one that somebody published: any program may open it, by Dial if the
// type names tcp, and by DialPackets if it names udp.
func Published(typ string) bool { return typ == TypeTCP || typ == TypeUDP || typ == TypeBoth }

// Types of published services.
const (
	TypeTCP  = "tcp"
	TypeUDP  = "udp"
	TypeBoth = "tcp-udp"
)

// PacketConn is packets to and from a program on another node, delivered as UDP does: each whole, some lost, some late. It
// is a net.Conn of which each Write is a packet and each Read returns one. One goroutine reads and one writes.
type PacketConn struct {
	conn    *net.UnixConn
	peer    key.Public
	service string
	reply   []byte
	dropped atomic.Uint64

	writes    sync.Mutex // guards the fields below
	writeSome func(b []byte) (int, error)
	frame     []byte // what is written next

	in []byte // what has been read from the node, from at
	at int
}

// packetBuffer is how much is read from the node at once: some packets of usual length.
const packetBuffer = 8 << 10

// packetsWaiting bounds what may wait for the node: half a second at 1 Mbit/s. The kernel's usual size makes calls over slow
// lines late.
const packetsWaiting = 32 << 10

func newPacketConn(conn *net.UnixConn, peer key.Public, service string, reply []byte) *PacketConn {
	conn.SetWriteBuffer(packetsWaiting) // an error leaves the kernel's own size
	return &PacketConn{conn: conn, peer: peer, service: service, reply: reply, writeSome: someWriter(conn)}
}

// Read waits for a packet. What is longer than b is cut, so b should have room for MaxPacket. At the end of the flow it
// returns io.EOF.
func (p *PacketConn) Read(b []byte) (int, error) {
	for {
		have := p.in[p.at:]
		if len(have) >= 2 {
			n := int(binary.BigEndian.Uint16(have))
			if len(have) >= 2+n {
				p.at += 2 + n
				return copy(b, have[2:2+n]), nil
			}
		}
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads more, behind what is there.
func (p *PacketConn) fill() error {
	have := copy(p.in, p.in[p.at:])
	want := packetBuffer
	if have >= 2 {
		want = max(want, 2+int(binary.BigEndian.Uint16(p.in)))
	}
	if cap(p.in) < want || cap(p.in) > want && have == 0 { // not larger for ever for one long packet
		p.in = append(make([]byte, 0, want), p.in[:have]...)
	}
	p.in, p.at = p.in[:have], 0
	n, err := p.conn.Read(p.in[have:want])
	p.in = p.in[:have+n]
	if n > 0 {
		return nil
	}
	return err
}

// Write sends a packet. It does not wait: when the node is behind, the packet is dropped and counted.
func (p *PacketConn) Write(b []byte) (int, error) {
	if len(b) > MaxPacket {
		return 0, fmt.Errorf("packet of %d bytes: %w", len(b), ErrPacket)
	}
	p.writes.Lock()
	defer p.writes.Unlock()
	p.frame = append(binary.BigEndian.AppendUint16(p.frame[:0], uint16(len(b))), b...)
	sent, err := p.writeSome(p.frame)
	switch {
	case err != nil:
		return 0, err
	case sent == 0:
		p.dropped.Add(1)
	case sent < len(p.frame): // begun, so it has to be ended
		if _, err := p.conn.Write(p.frame[sent:]); err != nil {
			return 0, err
		}
	}
	if cap(p.frame) > packetBuffer {
		p.frame = nil
	}
	return len(b), nil
}

// Dropped is how many packets Write has dropped.
func (p *PacketConn) Dropped() uint64 { return p.dropped.Load() }

// Reply is what the service answered when it took the flow, Peer the node at the other end.
func (p *PacketConn) Reply() []byte { return p.reply }

// Peer see Reply.
func (p *PacketConn) Peer() key.Public { return p.peer }

// Close ends the flow.
func (p *PacketConn) Close() error { return p.conn.Close() }

// LocalAddr means nothing; RemoteAddr names the node and service.
func (p *PacketConn) LocalAddr() net.Addr { return p.conn.LocalAddr() }

// RemoteAddr see LocalAddr.
func (p *PacketConn) RemoteAddr() net.Addr { return Addr{p.peer, p.service} }

// SetDeadline and its kind work as on any net.Conn; Write needs none.
func (p *PacketConn) SetDeadline(t time.Time) error { return p.conn.SetDeadline(t) }

// SetReadDeadline see SetDeadline.
func (p *PacketConn) SetReadDeadline(t time.Time) error { return p.conn.SetReadDeadline(t) }

// SetWriteDeadline see SetDeadline.
func (p *PacketConn) SetWriteDeadline(t time.Time) error { return p.conn.SetWriteDeadline(t) }

// DialPackets opens a flow of packets to a service of a node. A refusal is a *signal.Error: ErrUnsupported if the service
// takes no packets, or if a node on the way to it is too old for them.
func (c *Client) DialPackets(ctx context.Context, to key.Public, service string, header []byte) (*PacketConn, error) {
	r, conn, err := c.request(ctx, to, Request{Method: "stream.dial", Params: RequestParams{
		Key: to.String(), Service: service, Header: header, Packets: true,
	}})
	if err != nil {
		return nil, err
	}
	if !r.Packets { // an older node has opened a stream
		conn.Close()
		return nil, fmt.Errorf("dial %s on %s: %w", service, to.Short(), signal.Errorf(signal.ErrUnsupported, "the node of this box carries no packets: its version is too old"))
	}
	return newPacketConn(conn, to, service, r.Reply), nil
}

// AcceptPackets takes a flow of packets; see Packets.
func (in *Incoming) AcceptPackets(reply []byte) (*PacketConn, error) {
	if !in.Packets {
		return nil, ErrKind
	}
	conn, err := in.accept(reply)
	if err != nil {
		return nil, err
	}
	return newPacketConn(conn, in.Peer, in.service, nil), nil
}

// HandOverPackets takes a flow and gives the node the socket to join it with, one that is connected and has packets; see
// HandOver.
func (in *Incoming) HandOverPackets(reply []byte, udp *net.UDPConn) (Traffic, error) {
	if !in.Packets {
		udp.Close()
		return Traffic{}, ErrKind
	}
	return in.handOver(reply, udp)
}
