package wire

import (
	"encoding/binary"
)

// Accept answers a Setup, hop by hop back to the source.
//
//	path id 16 | forward base 4 | mtu 2 | zero 2 | price 8 | end length 2 | end
type Accept struct {
	ID          PathID
	ForwardBase uint32 // label base of the sender of this message
	MTU         uint16 // least on the whole path
	Price       uint64 // per MiB, sum
	End         []byte // Noise message 2, or a proof; ≤ 256
}

// Type is MessageAccept.
func (Accept) Type() uint8 { return MessageAccept }

// Append adds the body.
func (m Accept) Append(dst []byte) []byte {
	dst = append(dst, m.ID[:]...)
	dst = binary.BigEndian.AppendUint32(dst, m.ForwardBase)
	dst = binary.BigEndian.AppendUint16(dst, m.MTU)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, m.Price)
	return appendEnd(dst, m.End)
}

// ParseAccept reads an accept.
func ParseAccept(b []byte) (Accept, error) {
	c := fields(b)
	var m Accept
	c.fill(m.ID[:])
	m.ForwardBase, m.MTU = c.U32(), c.U16()
	c.Zero(2)
	m.Price, m.End = c.U64(), c.end256()
	return m, c.end("accept")
}

// Reasons of a Refuse or a Remove.
const (
	ReasonMalformed = 1  // lengths, index or values are wrong
	ReasonPlace     = 2  // the list does not agree with who sent it or who I am
	ReasonNeighbour = 3  // the next node is not up
	ReasonQuota     = 4  // too many setups or labels
	ReasonPolicy    = 5  // this neighbour, source or destination may not
	ReasonPrice     = 6  // above the cap
	ReasonReplay    = 7  // number used; the hint says what is free
	ReasonExpired   = 8  // not-after is past
	ReasonSignature = 9  // does not verify
	ReasonEnd       = 10 // the destination could not use the end part
	ReasonMTU       = 11 // the path carries too little
	ReasonClosed    = 12 // the source or destination ended it
	ReasonIdle      = 13 // no frame for the idle time
	ReasonLinkDown  = 14 // a link of the path is gone
	ReasonStale     = 15 // the rule was not in the other's list after a restart
	ReasonRevoked   = 16 // a key on the path is revoked
)

// Refuse answers a Setup.
//
//	path id 16 | index 1 | reason 1 | zero 2 | number hint 8
type Refuse struct {
	ID     PathID
	Index  uint8 // of the node that refuses
	Reason uint8
	Hint   uint64 // with ReasonReplay the highest number seen of this source; it jumps at most 2^32 by it
}

// Type is MessageRefuse.
func (Refuse) Type() uint8 { return MessageRefuse }

// Append adds the body.
func (m Refuse) Append(dst []byte) []byte {
	dst = append(append(dst, m.ID[:]...), m.Index, m.Reason, 0, 0)
	return binary.BigEndian.AppendUint64(dst, m.Hint)
}

// ParseRefuse reads a refuse.
func ParseRefuse(b []byte) (Refuse, error) {
	c := fields(b)
	var m Refuse
	c.fill(m.ID[:])
	m.Index, m.Reason = c.U8(), c.U8()
	c.Zero(2)
	m.Hint = c.U64()
	return m, c.end("refuse")
}

// Remove takes a path away; obeyed only from the in- or out-neighbour of the rule. Ack answers it.
//
//	request 4 | path id 16 | reason 1
type Remove struct {
	Request uint32
	ID      PathID
	Reason  uint8
}

// Type is MessageRemove.
func (Remove) Type() uint8 { return MessageRemove }

// Append adds the body.
func (m Remove) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	return append(append(dst, m.ID[:]...), m.Reason)
}

// ParseRemove reads a remove.
func ParseRemove(b []byte) (Remove, error) {
	c := fields(b)
	m := Remove{Request: c.U32()}
	c.fill(m.ID[:])
	m.Reason = c.U8()
	return m, c.end("remove")
}

// Kinds of an Event.
const (
	EventTooBig   = 1 // value: largest frame that fits
	EventLinkDown = 2 // the next link of the path is down
	EventNoLabel  = 3 // I don't know this label of mine
	EventCredit   = 4 // nothing is left
	EventPrice    = 5 // value: new price per MiB, from After seconds on
	EventLeaving  = 6 // a relay of the path leaves in order, soon
)

// Event tells the neighbour that uses one of my labels what happened behind it. It is a hint: the source
// confirms it by its own sealed probes. Ack answers it.
//
//	request 4 | label 4 | kind 1 | zero 3 | value 8 | after 4
type Event struct {
	Request uint32
	Label   uint32 // of the sender of this message
	Kind    uint8
	Value   uint64
	After   uint32 // seconds, ≥ 60 with EventPrice, else 0
}

// Type is MessageEvent.
func (Event) Type() uint8 { return MessageEvent }

// Append adds the body.
func (m Event) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	dst = binary.BigEndian.AppendUint32(dst, m.Label)
	dst = append(dst, m.Kind, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, m.Value)
	return binary.BigEndian.AppendUint32(dst, m.After)
}

// ParseEvent reads an event.
func ParseEvent(b []byte) (Event, error) {
	c := fields(b)
	m := Event{Request: c.U32(), Label: c.U32(), Kind: c.U8()}
	c.Zero(3)
	m.Value, m.After = c.U64(), c.U32()
	return m, c.end("event")
}
