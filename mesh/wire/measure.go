package wire

import "encoding/binary"

// LossUnknown is the Loss of a Measure where too little has come to tell.
const LossUnknown = 1<<32 - 1

// Measure goes along with pings and their answers: how much was sent, so that the receiver knows how much of it came, and what share
// of the receiver's own did not come here.
//
//	frames 8 | loss 4
type Measure struct {
	Frames uint64 // labelled frames and Measures sent on the link so far, this one among them
	Loss   uint32 // of the receiver's, in millionths; or LossUnknown
}

// Type is MessageMeasure.
func (Measure) Type() uint8 { return MessageMeasure }

// Append adds the body.
func (m Measure) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(dst, m.Frames), m.Loss)
}

// ParseMeasure reads a measure.
func ParseMeasure(b []byte) (Measure, error) {
	c := fields(b)
	m := Measure{Frames: c.U64(), Loss: c.U32()}
	if !c.Bad && m.Loss > 1_000_000 && m.Loss != LossUnknown {
		return Measure{}, wrong("measure", ErrValue)
	}
	return m, c.end("measure")
}
