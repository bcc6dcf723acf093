package wire

import (
	"encoding/binary"
)

// MessageHead is the length of {length u16, type u8} before each message's body; length counts the body alone.
const MessageHead = 3

// Types of the messages inside a LINK frame. Unknown types are skipped.
const (
	MessageKeep          = 1
	MessagePing          = 2
	MessagePong          = 3
	MessageRekey1        = 4
	MessageRekey2        = 5
	MessageChallenge     = 6
	MessageResponse      = 7
	MessageSetup         = 8
	MessageAccept        = 9
	MessageRefuse        = 10
	MessageRemove        = 11
	MessageEvent         = 12
	MessageRules         = 13
	MessageRulesList     = 14
	MessageRecord        = 15
	MessageRecordAck     = 16
	MessageRecordsDigest = 17
	MessagePiece         = 18
	MessageAck           = 19
	MessageBye           = 20
	MessagePort          = 21
	MessagePortOpen      = 22
	MessageTwin          = 23
	MessageLater         = 24
	MessageLaterAnswer   = 25
	MessageTry           = 26
	MessageTried         = 27
	MessageMembers       = 28
	MessageMembersList   = 29
	MessageStatement     = 30
	MessageWayAsk        = 31
	MessageWay           = 32
	MessageRecordsSum    = 33
	MessageMeasure       = 34
)

// Message is one message of a LINK frame: Append adds its body, without the head.
type Message interface {
	Type() uint8
	Append(dst []byte) []byte
}

// AppendMessage adds the head and the body of m. A body above 65,535 bytes is a broken invariant of the caller;
// the largest there is, a record, has 4 KiB.
func AppendMessage(dst []byte, m Message) []byte {
	at := len(dst)
	dst = m.Append(append(dst, 0, 0, m.Type()))
	n := len(dst) - at - MessageHead
	if n > 0xffff {
		panic("wire: message body above 65535 bytes")
	}
	binary.BigEndian.PutUint16(dst[at:], uint16(n))
	return dst
}

// NextMessage takes the first message off an opened LINK body. Body and rest are parts of b.
func NextMessage(b []byte) (typ uint8, body, rest []byte, err error) {
	if len(b) < MessageHead {
		return 0, nil, nil, wrong("message", ErrLength)
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < MessageHead+n {
		return 0, nil, nil, wrong("message", ErrLength)
	}
	return b[2], b[MessageHead : MessageHead+n], b[MessageHead+n:], nil
}

// Limits of messages that are cut because they exceed one frame.
const (
	MaxPieces  = 16
	MaxMessage = 8192 // a whole message, head and body
	PieceHead  = 4
)

// Piece is a part of a message that does not fit in one frame; the parts in order are the message with its head.
//
//	id 2 | index 1 | count 1 | bytes
type Piece struct {
	ID           uint16 // of the message cut; rising per link and direction
	Index, Count uint8
	Bytes        []byte
}

// Type is MessagePiece.
func (Piece) Type() uint8 { return MessagePiece }

// Append adds the body.
func (m Piece) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, m.ID)
	return append(append(dst, m.Index, m.Count), m.Bytes...)
}

// ParsePiece reads a piece.
func ParsePiece(b []byte) (Piece, error) {
	c := fields(b)
	m := Piece{ID: c.U16(), Index: c.U8(), Count: c.U8(), Bytes: c.rest()}
	switch {
	case c.Bad || len(m.Bytes) == 0:
		return Piece{}, wrong("piece", ErrLength)
	case m.Count < 2 || m.Count > MaxPieces || m.Index >= m.Count:
		return Piece{}, wrong("piece", ErrValue)
	}
	return m, nil
}

// Cut divides a message (with its head, as AppendMessage made it) into pieces whose own message fits in room
// bytes of a LINK body. The pieces hold parts of message.
func Cut(message []byte, id uint16, room int) ([]Piece, error) {
	room -= MessageHead + PieceHead
	if room <= 0 || len(message) > MaxMessage || len(message) > room*MaxPieces {
		return nil, wrong("cut message", ErrTooLarge)
	}
	count := (len(message) + room - 1) / room
	pieces := make([]Piece, 0, count)
	for i := range count {
		part := message[i*room : min(len(message), (i+1)*room)]
		pieces = append(pieces, Piece{ID: id, Index: uint8(i), Count: uint8(count), Bytes: part})
	}
	return pieces, nil
}
