package stream

import (
	"encoding/binary"
	"sync"
)

// Paths change under a connection, but quic-go never sends smaller packets than it found to work, and none below 1,200
// bytes. So a packet that no longer fits, or never could, is cut here and put together by the other Endpoint:
//
//	0x80 | last u1 · id u8 · offset u16 · bytes
//
// The first two bits 10 are no QUIC packet of ours (version negotiation is off), and since the first bit is 1, pieces
// travel sealed.
const (
	pieceMark   = 0x80
	pieceMask   = 0xc0
	pieceLast   = 0x01
	pieceHeader = 4
	// minPiece keeps a nonsensical MTU from turning a packet into hundreds.
	minPiece = 256
	// pieceSlots is how many packets of a peer may be incomplete at once; the oldest gives way.
	pieceSlots = 4
)

// appendPiece appends the piece of packet that begins at offset and has at most size bytes, header included. It
// returns the offset of the next piece.
func appendPiece(dst, packet []byte, id uint8, offset, size int) ([]byte, int) {
	end := min(offset+max(size, minPiece)-pieceHeader, len(packet))
	mark := byte(pieceMark)
	if end == len(packet) {
		mark |= pieceLast
	}
	dst = append(dst, mark, id)
	dst = binary.BigEndian.AppendUint16(dst, uint16(offset))
	return append(dst, packet[offset:end]...), end
}

// joiner puts pieces together. What an attacker could do with it needs the session's keys, and what comes out is checked
// by QUIC; so pieces are only counted, not tracked.
type joiner struct {
	mu    sync.Mutex // guards the fields below
	next  int
	slots [pieceSlots]*joining
}

type joining struct {
	id    uint8
	used  bool
	have  int // bytes
	total int // 0: the last piece is not here yet
	buf   [maxPacket]byte
}

// add takes a piece; when that completes a packet, deliver gets it.
func (j *joiner) add(piece []byte, deliver func(packet []byte)) {
	if len(piece) <= pieceHeader {
		return
	}
	id, offset, body := piece[1], int(binary.BigEndian.Uint16(piece[2:])), piece[pieceHeader:]
	if offset+len(body) > maxPacket {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.slotLocked(id)
	copy(s.buf[offset:], body)
	s.have += len(body)
	if piece[0]&pieceLast != 0 {
		s.total = offset + len(body)
	}
	if s.total > 0 && s.have >= s.total {
		s.used = false
		deliver(s.buf[:s.total])
	}
}

func (j *joiner) slotLocked(id uint8) *joining {
	for _, s := range j.slots {
		if s != nil && s.used && s.id == id {
			return s
		}
	}
	s := j.slots[j.next]
	if s == nil {
		s = new(joining)
		j.slots[j.next] = s
	}
	j.next = (j.next + 1) % pieceSlots
	s.id, s.used, s.have, s.total = id, true, 0, 0
	return s
}
