package stream

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// meshPort stands in the addresses that quic-go sees; nothing else does with it.
const meshPort = 1

// sealedExtra is how much less fits into a sealed frame than into a presealed one: kind, AEAD tag.
const sealedExtra = 20

// counters of one endpoint.
type counters struct {
	received, dropped, sent, lost, full, cut atomic.Uint64
	moved, unmoved, strangers                atomic.Uint64
	flowSent, flowReceived, flowInStream     atomic.Uint64
	flowDropped, flowStray                   atomic.Uint64
	flows                                    atomic.Int64
}

// packetConn is what quic-go takes for its UDP socket. It implements quic.OOBCapablePacketConn and ReadBatch, so that
// whole trains leave at once; a real socket that never sends stands behind SyscallConn, where quic-go looks for what the
// kernel can do (segmentation, don't-fragment), which here is what the Carrier can do.
type packetConn struct {
	carrier Carrier
	lookup  func(netip.Addr) *peer
	local   *net.UDPAddr
	probe   *probeSocket
	ring    *ring
	count   *counters
	closed  chan struct{}
}

func newPacketConn(carrier Carrier, local netip.Addr, waiting int, lookup func(netip.Addr) *peer, count *counters) (*packetConn, error) {
	probe, err := newProbeSocket()
	if err != nil {
		return nil, err
	}
	return &packetConn{
		carrier: carrier, lookup: lookup, local: udpAddr(local), probe: probe,
		ring: newRing(waiting), count: count, closed: make(chan struct{}),
	}, nil
}

func udpAddr(a netip.Addr) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, meshPort))
}

// deliver takes packets from the network.
func (c *packetConn) deliver(p *peer, packets []byte, seg int) {
	if seg <= 0 || seg > len(packets) {
		seg = len(packets)
	}
	if len(packets) == 0 {
		return
	}
	if packets[0]&0x80 == 0 {
		c.enqueue(p, packets, seg)
		return
	}
	for rest := packets; len(rest) > 0; rest = rest[min(seg, len(rest)):] { // handshakes and pieces: rarely more than one
		packet := rest[:min(seg, len(rest))]
		if packet[0]&pieceMask == pieceMark {
			p.joiner.add(packet, func(whole []byte) { c.enqueue(p, whole, len(whole)) })
		} else {
			c.enqueue(p, packet, len(packet))
		}
	}
}

func (c *packetConn) enqueue(p *peer, packets []byte, seg int) {
	n := uint64((len(packets) + seg - 1) / seg)
	if c.ring.put(p.udp, packets, seg) {
		c.count.received.Add(n)
	} else {
		c.count.dropped.Add(n)
	}
}

// ReadBatch is how quic-go receives on Linux and macOS.
func (c *packetConn) ReadBatch(ms []ipv4.Message, _ int) (int, error) { return c.ring.get(ms) }

// ReadFrom is how quic-go receives elsewhere.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	ms := []ipv4.Message{{Buffers: [][]byte{b}}}
	if _, err := c.ring.get(ms); err != nil {
		return 0, nil, err
	}
	return ms[0].N, ms[0].Addr, nil
}

// ReadMsgUDP completes the interface.
func (c *packetConn) ReadMsgUDP(b, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, from, err := c.ReadFrom(b)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	return n, 0, 0, from.(*net.UDPAddr), nil
}

// WriteTo sends one packet.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("no mesh address")
	}
	n, _, err := c.WriteMsgUDP(b, nil, u)
	return n, err
}

// WriteMsgUDP sends a packet, or the train that the control message in oob makes of b. ECN marks in oob are left out;
// quic-go notices. What it returns as an error other than "message too long" would end the connection, so a packet that
// the mesh can't take now counts as sent and lost.
func (c *packetConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	select {
	case <-c.closed:
		return 0, 0, net.ErrClosed
	default:
	}
	seg := segmentSize(oob)
	if seg <= 0 || seg > len(b) {
		seg = len(b)
	}
	to, _ := netip.AddrFromSlice(addr.IP)
	p := c.lookup(to)
	if p == nil || len(b) == 0 {
		c.count.lost.Add(1)
		return len(b), len(oob), nil
	}
	for rest := b; len(rest) > 0; {
		run := sameForm(rest, seg)
		if err := c.send(p, rest[:run], min(seg, run)); err != nil {
			return 0, 0, err
		}
		rest = rest[run:]
	}
	return len(b), len(oob), nil
}

// sameForm is the length of the packets at the start of b that all have long headers or all have short ones.
func sameForm(b []byte, seg int) int {
	n := min(seg, len(b))
	for n < len(b) && (b[n]^b[0])&0x80 == 0 {
		n = min(n+seg, len(b))
	}
	return n
}

// send sends packets of one form, cut if they were once small enough for the path and no longer are.
func (c *packetConn) send(p *peer, packets []byte, seg int) error {
	limit := c.carrier.MTU(p.key)
	if limit > 0 && packets[0]&0x80 != 0 {
		limit -= sealedExtra
	}
	err := error(syscall.EMSGSIZE)
	if limit <= 0 || seg <= limit {
		err = c.sendPatiently(p, packets, seg)
	}
	switch {
	case err == nil:
		if size := int32(seg); size > p.proven.Load() {
			p.proven.Store(size)
		}
		return nil
	case !errors.Is(err, syscall.EMSGSIZE):
		return nil
	case seg > int(p.proven.Load()):
		return errTooLong // a probe of the path's size: it has failed
	}
	return c.sendCut(p, packets, seg, limit)
}

// sendPatiently gives the carrier time when it is full, since quic-go has no other way to learn that. Errors other than
// "message too long" have been counted and may be forgotten.
func (c *packetConn) sendPatiently(p *peer, packets []byte, seg int) error {
	n := uint64((len(packets) + seg - 1) / seg)
	err := c.carrier.SendQUIC(p.key, packets, seg)
	if errors.Is(err, syscall.EAGAIN) {
		c.count.full.Add(1)
		err = c.retry(p, packets, seg)
	}
	switch {
	case err == nil:
		c.count.sent.Add(n)
	case !errors.Is(err, syscall.EMSGSIZE):
		c.count.lost.Add(n)
	}
	return err
}

func (c *packetConn) retry(p *peer, packets []byte, seg int) error {
	end := time.Now().Add(fullTotal)
	t := time.NewTimer(fullFirst)
	defer t.Stop()
	for wait := fullFirst; ; wait = min(2*wait, fullMost) {
		select {
		case <-c.closed:
			return net.ErrClosed
		case <-t.C:
		}
		err := c.carrier.SendQUIC(p.key, packets, seg)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return err
		}
		t.Reset(wait)
	}
}

// sendCut sends each packet in pieces that fit; limit 0: the path has refused the size without saying which it takes.
func (c *packetConn) sendCut(p *peer, packets []byte, seg, limit int) error {
	if limit <= 0 {
		limit = minPacket / 2
	}
	if packets[0]&0x80 == 0 {
		limit -= sealedExtra
	}
	var piece [maxPacket]byte
	for rest := packets; len(rest) > 0; rest = rest[min(seg, len(rest)):] {
		packet, id := rest[:min(seg, len(rest))], uint8(p.pieceID.Add(1))
		c.count.cut.Add(1)
		for offset := 0; offset < len(packet); {
			var b []byte
			b, offset = appendPiece(piece[:0], packet, id, offset, min(limit, maxPacket))
			if c.sendPatiently(p, b, len(b)) != nil {
				break // the others are of no use without it
			}
		}
	}
	return nil
}

// Close wakes everyone; the Transport has ended before.
func (c *packetConn) Close() error {
	close(c.closed)
	c.ring.close()
	return c.probe.Close()
}

// LocalAddr is this node's mesh address.
func (c *packetConn) LocalAddr() net.Addr { return c.local }

// SetReadDeadline bounds ReadBatch; quic-go uses it to stop reading.
func (c *packetConn) SetReadDeadline(t time.Time) error { c.ring.setDeadline(t); return nil }

// SetWriteDeadline does nothing: writes are bounded by fullTotal.
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadBuffer and SetWriteBuffer do nothing: the ring is what buffers.
func (c *packetConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer see SetReadBuffer.
func (c *packetConn) SetWriteBuffer(int) error { return nil }

// SyscallConn is the socket that quic-go may ask and set options on.
func (c *packetConn) SyscallConn() (syscall.RawConn, error) { return c.probe.SyscallConn() }
