package stream

import (
	"encoding/binary"
	"fmt"
)

// A stream moves to TCP by a second stream of the same connection, which opens for moveService and lives as long as the
// TCP connection does. All numbers are big endian.
//
//	header:  stream u64                              which stream of this connection
//	reply:   port u16 | token 32 | proof 32          where to connect to, from the mesh address and to the mesh address
//
// The TCP connection begins with the token, which is answered by the proof; then whoever dialled sends goByte on the second
// stream, and from there on either end may end its direction of the QUIC stream and go on over TCP.
const (
	moveService = "stream.tcp"
	secretLen   = 32
	offerLen    = 2 + 2*secretLen
	goByte      = 1
)

// Ask is the header: move this stream.
type Ask struct {
	Stream uint64
}

// Append appends the header to dst.
func (a Ask) Append(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, a.Stream) }

// ParseAsk parses a header.
func ParseAsk(b []byte) (Ask, error) {
	if len(b) != 8 {
		return Ask{}, fmt.Errorf("ask: %d bytes: %w", len(b), ErrFrame)
	}
	return Ask{Stream: binary.BigEndian.Uint64(b)}, nil
}

// Offer is the reply: a port that is open for one connection, and what both ends have to know.
type Offer struct {
	Port  uint16
	Token [secretLen]byte // from the end that connects
	Proof [secretLen]byte // from the end that listens
}

// Append appends the reply to dst.
func (o Offer) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, o.Port)
	dst = append(dst, o.Token[:]...)
	return append(dst, o.Proof[:]...)
}

// ParseOffer parses a reply.
func ParseOffer(b []byte) (Offer, error) {
	if len(b) != offerLen {
		return Offer{}, fmt.Errorf("offer: %d bytes: %w", len(b), ErrFrame)
	}
	o := Offer{Port: binary.BigEndian.Uint16(b)}
	copy(o.Token[:], b[2:])
	copy(o.Proof[:], b[2+secretLen:])
	if o.Port == 0 {
		return Offer{}, fmt.Errorf("offer: port 0: %w", ErrFrame)
	}
	return o, nil
}
