package tun

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"
)

// maxGroups is how many flows are joined at a time: what four parallel downloads interleave.
const maxGroups = 4

// coalescer joins consecutive TCP segments or UDP datagrams of one flow into super-packets, and writes packets with a
// virtio header of its own making. It holds one group for each of a few flows; a packet is either joined to its flow's
// group or written after it, so the order within a flow never changes, and what names no flow is written after all.
//
// Super-packets that the kernel refuses are written again as the packets they were made of.
type coalescer struct {
	write   func(b []byte) error
	headLen int         // of the virtio header
	joinUDP atomic.Bool // granted, and not refused since; Features reads it from other goroutines

	groups [maxGroups]*group // the first n hold something, the oldest first
	n      int
	single []byte // virtio header and a packet that is written alone
	cut    segmenter

	lost  int // packets refused in the call under way
	cause error
}

// newCoalescer makes one for virtio headers of that length.
func newCoalescer(headLen int, joinUDP bool, write func(b []byte) error) *coalescer {
	c := &coalescer{write: write, headLen: headLen, single: make([]byte, bufferSize)}
	c.joinUDP.Store(joinUDP)
	return c
}

// send takes a packet; see Device.Send.
func (c *coalescer) send(p []byte, checksum bool) error {
	p, ok := sized(p)
	if !ok {
		return ErrPacket
	}
	in, known := parseInner(p)
	if checksum && !known {
		return ErrPacket
	}
	if !known {
		c.writeAll()
		c.writeAlone(p, inner{})
		return c.outcome()
	}
	header, joinable := c.joinable(p, in)
	if i := c.find(p, in); i >= 0 {
		g := c.groups[i]
		if joinable && g.continues(p, in, header) && g.trusted(checksum || in.right(p)) {
			if g.join(p, header); g.closed {
				c.writeGroup(i)
			}
			return c.outcome()
		}
		c.writeGroup(i)
	}
	switch {
	case joinable && !final(p, in):
		c.hold(p, in, header, checksum)
	case checksum:
		c.writeAlone(p, in)
	default:
		c.writeAlone(p, inner{})
	}
	return c.outcome()
}

// find returns the group of p's flow, -1 when there is none. Packets come in runs, so the youngest group is asked first.
func (c *coalescer) find(p []byte, in inner) int {
	for i := c.n - 1; i >= 0; i-- {
		if c.groups[i].sameFlow(p, in) {
			return i
		}
	}
	return -1
}

// hold begins a group with p, after writing the oldest one where all places are taken.
func (c *coalescer) hold(p []byte, in inner, header int, open bool) {
	if c.n == maxGroups {
		c.writeGroup(0)
	}
	if c.groups[c.n] == nil {
		c.groups[c.n] = &group{buf: make([]byte, bufferSize), head: c.headLen}
	}
	c.groups[c.n].begin(p, in, header, open)
	c.n++
}

// flush writes all that is held.
func (c *coalescer) flush() error {
	if c.n == 0 {
		return nil
	}
	c.writeAll()
	return c.outcome()
}

func (c *coalescer) writeAll() {
	for c.n > 0 {
		c.writeGroup(0)
	}
}

// writeGroup writes a group and frees its place.
func (c *coalescer) writeGroup(i int) {
	g := c.groups[i]
	c.n--
	copy(c.groups[i:], c.groups[i+1:c.n+1])
	c.groups[c.n] = g
	h, b := g.seal()
	err := c.write(b)
	if err == nil {
		return
	}
	if g.count == 1 || noDevice(err) {
		c.lose(g.count, err)
		return
	}
	if g.in.proto == protoUDP && errors.Is(err, syscall.EINVAL) {
		c.joinUDP.Store(false)
	}
	c.writeCut(h, b[c.headLen:])
}

// writeCut writes a refused super-packet as single packets.
func (c *coalescer) writeCut(h virtio, super []byte) {
	c.cut.load(h, super)
	for {
		n, more := c.cut.packet(c.single[c.headLen:])
		if !more {
			return
		}
		in, _ := parseInner(c.single[c.headLen : c.headLen+n])
		c.writeSingle(n, in)
	}
}

// writeAlone writes a packet that is no part of a group. in is empty where its checksum stays as it is.
func (c *coalescer) writeAlone(p []byte, in inner) {
	c.writeSingle(copy(c.single[c.headLen:], p), in)
}

func (c *coalescer) writeSingle(n int, in inner) {
	b := c.single[:c.headLen+n]
	if in.transport > 0 {
		open(b[c.headLen:], in).put(b[:c.headLen])
	} else {
		virtio{}.put(b[:c.headLen])
	}
	if err := c.write(b); err != nil {
		c.lose(1, err)
	}
}

// open leaves the checksum of p to the kernel and returns the header that says so.
func open(p []byte, in inner) virtio {
	binary.BigEndian.PutUint16(p[in.transport+in.checksum:], in.pseudo(p))
	return virtio{
		flags: virtioNeedsChecksum, headerLen: uint16(in.transport), checksumStart: uint16(in.transport), checksumOffset: uint16(in.checksum),
	}
}

func (c *coalescer) lose(packets int, err error) {
	c.lost += packets
	c.cause = err
}

// outcome is the error of the call that ends.
func (c *coalescer) outcome() error {
	if c.lost == 0 {
		return nil
	}
	n, err := c.lost, c.cause
	c.lost, c.cause = 0, nil
	if n == 1 {
		return err
	}
	return &LostError{Packets: n, Err: err}
}
