package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlRoom holds the control messages of one call: a segment size and an ECN field take 48 bytes at most.
const controlRoom = 64

// control is room for control messages. It is made of words, since the kernel's headers in it are read and written as
// such: numbers in them, the 16-bit segment size too, lie in the machine's own byte order.
type control struct {
	words [controlRoom / 8]uint64
	n     int
}

func (c *control) base() *[controlRoom]byte { return (*[controlRoom]byte)(unsafe.Pointer(&c.words)) }

// add appends the head of a message and returns the place of its data.
func (c *control) add(level, kind int32, size int) unsafe.Pointer {
	at := &c.base()[c.n]
	h := (*unix.Cmsghdr)(unsafe.Pointer(at))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	c.n += unix.CmsgSpace(size)
	return unsafe.Add(unsafe.Pointer(at), unix.CmsgLen(0))
}

// segment asks the kernel to cut the train.
func (c *control) segment(size int) {
	*(*uint16)(c.add(unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
}

// ecn sets the field of the outer headers; v4 says which header it will be.
func (c *control) ecn(field uint8, v4 bool) {
	if v4 {
		*(*int32)(c.add(unix.IPPROTO_IP, unix.IP_TOS, 4)) = int32(field)
		return
	}
	*(*int32)(c.add(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)) = int32(field)
}

// all returns where the messages lie; nil: there are none.
func (c *control) all() *byte {
	if c.n == 0 {
		return nil
	}
	return &c.base()[0]
}

// parseControl finds the segment size of a train, 0 for none, and the ECN field among received control messages, which
// must be aligned to words.
func parseControl(b []byte) (segment int, ecn uint8) {
	const ecnMask = 3
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			break
		}
		data := unix.CmsgLen(0)
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && n >= data+4:
			segment = int(*(*int32)(unsafe.Pointer(&b[data])))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && n > data:
			ecn = b[data] & ecnMask // a byte here, though it is set as an int
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && n >= data+4:
			ecn = uint8(*(*int32)(unsafe.Pointer(&b[data]))) & ecnMask
		}
		next := unix.CmsgSpace(n - data)
		if n < data || next > len(b) {
			break
		}
		b = b[next:]
	}
	return segment, ecn
}
