package messenger

import (
	"encoding/binary"
	"math/bits"

	"skywire/mesh/messenger/envelope"
)

// The body of a receipt, an item without number, and of a frame of the same name:
//
//	1 │ card 8 (ours that they hold) │ each: epoch 8 │ stream 1 │ flags 1 │ upto uvarint │ id of upto 8 │ length uvarint, bitmap of upto+2 …
//
// flags 1: a number came again with another content, the sender has lost its memory. Read marks are an item with a number:
//
//	2 │ ids 32 each
const (
	receiptArrived = 1
	receiptRead    = 2
	receiptRefused = 3 // 3 │ reason length, text │ ids 32 each: failed for good

	receiptConflict = 1

	maxAnswers  = 8
	maxBitmap   = recvWindow / 8
	maxMarks    = 512
	sendWindow  = 1024 // numbers that may be unanswered above the floor
	recvWindow  = 4096 // numbers taken above the first one missing
	maxReason   = 64
	readMarkLen = 32
)

type answer struct {
	epoch    uint64
	stream   uint8
	conflict bool
	upto     uint64
	last     uint64 // begin of the id of item upto; 0: not known
	beyond   []byte // bit i of it: upto+2+i is there
}

func (a *answer) has(seq uint64) bool {
	if seq <= a.upto {
		return true
	}
	if seq < a.upto+2 {
		return false
	}
	i := seq - a.upto - 2
	return i < uint64(len(a.beyond))*8 && a.beyond[i/8]&(1<<(i%8)) != 0
}

// highest is the highest number that it says is there.
func (a *answer) highest() uint64 {
	for i := len(a.beyond) - 1; i >= 0; i-- {
		if a.beyond[i] != 0 {
			return a.upto + 2 + uint64(i)*8 + uint64(bits.Len8(a.beyond[i])) - 1
		}
	}
	return a.upto
}

func (a *answer) set(seq uint64) {
	if seq < a.upto+2 || seq-a.upto-2 >= maxBitmap*8 {
		return
	}
	i := seq - a.upto - 2
	for uint64(len(a.beyond)) <= i/8 {
		a.beyond = append(a.beyond, 0)
	}
	a.beyond[i/8] |= 1 << (i % 8)
}

func appendReceipt(card uint64, all []answer) []byte {
	b := append([]byte{receiptArrived}, be64(card)...)
	for _, a := range all {
		b = append(binary.BigEndian.AppendUint64(b, a.epoch), a.stream, 0)
		if a.conflict {
			b[len(b)-1] = receiptConflict
		}
		b = appendBytes(binary.BigEndian.AppendUint64(binary.AppendUvarint(b, a.upto), a.last), a.beyond)
	}
	return b
}

func parseReceipt(b []byte) (card uint64, all []answer, err error) {
	r := fields(b)
	r.Bad = r.U8() != receiptArrived
	card = r.U64()
	for !r.Bad && len(r.B) > 0 && len(all) < maxAnswers {
		a := answer{epoch: r.U64(), stream: r.U8(), conflict: r.U8()&receiptConflict != 0, upto: r.uvarint(), last: r.U64()}
		a.beyond = r.bytes(maxBitmap)
		r.Bad = r.Bad || a.upto > 1<<62
		all = append(all, a)
	}
	return card, all, r.end("receipt")
}

// appendMarks makes the body of read marks or of a refusal.
func appendMarks(op byte, reason string, ids []MessageID) []byte {
	b := []byte{op}
	if op == receiptRefused {
		b = appendBytes(b, []byte(reason[:min(len(reason), maxReason)]))
	}
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

func parseMarks(b []byte) (op byte, reason string, ids []MessageID, err error) {
	r := fields(b)
	op = r.U8()
	switch op {
	case receiptRead:
	case receiptRefused:
		reason = string(r.bytes(maxReason))
	default:
		r.Bad = true
	}
	if n := len(r.B) / len(MessageID{}); !r.Bad && n <= maxMarks {
		for range n {
			ids = append(ids, MessageID(r.Take(len(envelope.ItemID{}))))
		}
	}
	return op, reason, ids, r.end("receipt")
}
