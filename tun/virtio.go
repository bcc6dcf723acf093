package tun

import "encoding/binary"

// struct virtio_net_hdr, in the byte order of the machine:
//
//	0      1         2        4         6           8            10             12
//	+------+---------+--------+---------+-----------+------------+- - - - - - - -+
//	| flags| gso type| hdr len| gso size| csum start| csum offset| (buffers: 12) |
//	+------+---------+--------+---------+-----------+------------+- - - - - - - -+
const (
	virtioLen    = 10
	maxVirtioLen = 12

	virtioNeedsChecksum = 1

	gsoNone = 0
	gsoTCP4 = 1
	gsoTCP6 = 4
	gsoUDP  = 5    // UDP_L4: equal datagrams of one flow
	gsoECN  = 0x80 // CWR stands on the first segment alone
)

type virtio struct {
	flags, gsoType                                    uint8
	headerLen, gsoSize, checksumStart, checksumOffset uint16
}

func parseVirtio(b []byte) (h virtio, ok bool) {
	if len(b) < virtioLen {
		return virtio{}, false
	}
	e := binary.NativeEndian
	return virtio{b[0], b[1], e.Uint16(b[2:]), e.Uint16(b[4:]), e.Uint16(b[6:]), e.Uint16(b[8:])}, true
}

// put writes h to the first 10 bytes of b and zeroes what follows of a longer header.
func (h virtio) put(b []byte) {
	e := binary.NativeEndian
	clear(b)
	b[0], b[1] = h.flags, h.gsoType
	e.PutUint16(b[2:], h.headerLen)
	e.PutUint16(b[4:], h.gsoSize)
	e.PutUint16(b[6:], h.checksumStart)
	e.PutUint16(b[8:], h.checksumOffset)
}
