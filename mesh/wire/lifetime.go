package wire

import "encoding/binary"

// MaxLater bounds the silence that a neighbour may ask for, in seconds.
const MaxLater = 120

// Later asks the neighbour to keep silent for so many seconds and then to send a LaterAnswer: whether that arrives tells how long the
// NATs between remember the link. Keep is the longest silence that the sender wants on the link from now on.
//
//	seconds 2 | keep 2 | random 8
type Later struct {
	Seconds, Keep uint16 // Keep 0: as it is
	Random        [8]byte
}

// Type is MessageLater.
func (Later) Type() uint8 { return MessageLater }

// Append adds the body.
func (m Later) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, m.Seconds)
	return append(binary.BigEndian.AppendUint16(dst, m.Keep), m.Random[:]...)
}

// ParseLater reads a later.
func ParseLater(b []byte) (Later, error) {
	c := fields(b)
	m := Later{Seconds: c.U16(), Keep: c.U16()}
	c.fill(m.Random[:])
	if err := c.end("later"); err != nil {
		return Later{}, err
	}
	if m.Seconds > MaxLater || m.Keep > MaxLater {
		return Later{}, wrong("later", ErrValue)
	}
	return m, nil
}

// LaterAnswer answers a Later: at once with 0 seconds, and then with the seconds that were asked for.
//
//	seconds 2 | random 8
type LaterAnswer struct {
	Seconds uint16
	Random  [8]byte
}

// Type is MessageLaterAnswer.
func (LaterAnswer) Type() uint8 { return MessageLaterAnswer }

// Append adds the body.
func (m LaterAnswer) Append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, m.Seconds), m.Random[:]...)
}

// ParseLaterAnswer reads an answer.
func ParseLaterAnswer(b []byte) (LaterAnswer, error) {
	c := fields(b)
	m := LaterAnswer{Seconds: c.U16()}
	c.fill(m.Random[:])
	return m, c.end("later answer")
}
