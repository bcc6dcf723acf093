package wire

import (
	"encoding/binary"
)

// Session control: the data of a sealed body of KindControl is a type u8 and its fields. Unknown types are
// dropped. The end that hears of a path hears it on that path, so no message names a path but Use and Report.
const (
	CtlKeep      = 1
	CtlReport    = 2
	CtlUse       = 3
	CtlProbe     = 4
	CtlProbeAck  = 5
	CtlRekey1    = 6
	CtlRekey2    = 7
	CtlProof     = 8
	CtlEcho      = 9
	CtlEchoReply = 10
	CtlError     = 11
	CtlPunch     = 12
	CtlPunchGo   = 13
)

// Control is one message of session control: Append adds its type and fields.
type Control interface {
	Append(dst []byte) []byte
}

// ControlType is the type of a control body, 0 if it is empty.
func ControlType(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func control(b []byte, typ uint8, what string) (cursor, error) {
	if ControlType(b) != typ {
		return cursor{}, wrong(what, ErrType)
	}
	return fields(b[1:]), nil
}

// ControlKeep keeps a path's rules alive.
//
//	type 1
type ControlKeep struct{}

// Append adds the message.
func (ControlKeep) Append(dst []byte) []byte { return append(dst, CtlKeep) }

// ParseControlKeep reads a keep.
func ParseControlKeep(b []byte) (ControlKeep, error) {
	c, err := control(b, CtlKeep, "control keep")
	if err != nil {
		return ControlKeep{}, err
	}
	return ControlKeep{}, c.end("control keep")
}

// LaneReport is what came on one lane.
type LaneReport struct {
	Highest uint64 // counter
	Frames  uint64 // opened since the path was set up
}

// Report tells the sender of a path what arrived on it.
//
//	type 1 | lanes 1 | path 2 | hold 4 | per lane: highest 8, frames 8
type Report struct {
	Path  uint16
	Hold  uint32 // microseconds between the arrival of the highest counter and this report
	Lanes []LaneReport
}

// Append adds the message.
func (m Report) Append(dst []byte) []byte {
	dst = append(dst, CtlReport, uint8(len(m.Lanes)))
	dst = binary.BigEndian.AppendUint16(dst, m.Path)
	dst = binary.BigEndian.AppendUint32(dst, m.Hold)
	for _, l := range m.Lanes {
		dst = binary.BigEndian.AppendUint64(dst, l.Highest)
		dst = binary.BigEndian.AppendUint64(dst, l.Frames)
	}
	return dst
}

// ParseReport reads a report.
func ParseReport(b []byte) (Report, error) {
	c, err := control(b, CtlReport, "report")
	if err != nil {
		return Report{}, err
	}
	n := int(c.U8())
	m := Report{Path: c.U16(), Hold: c.U32()}
	if c.Bad || len(c.B) != 16*n {
		return Report{}, wrong("report", ErrLength)
	}
	if n > MaxLanes {
		return Report{}, wrong("report", ErrValue)
	}
	for range n {
		m.Lanes = append(m.Lanes, LaneReport{Highest: c.U64(), Frames: c.U64()})
	}
	return m, c.end("report")
}

// Use names the path on which the peer shall answer from now on; the end obeys the one with the highest number.
//
//	type 1 | zero 1 | path 2 | number 4
type Use struct {
	Path   uint16
	Number uint32 // rising with each Use of the session
}

// Append adds the message.
func (m Use) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, CtlUse, 0), m.Path)
	return binary.BigEndian.AppendUint32(dst, m.Number)
}

// ParseUse reads a use.
func ParseUse(b []byte) (Use, error) {
	c, err := control(b, CtlUse, "use")
	if err != nil {
		return Use{}, err
	}
	c.Zero(1)
	m := Use{Path: c.U16(), Number: c.U32()}
	return m, c.end("use")
}

// MaxProbe bounds the padding of a probe: the largest datagram there is.
const MaxProbe = 65535

// Probe fills a datagram to a size to see whether it passes.
//
//	type 1 | zero 1 | size 2 | id 4 | padding of zeros
type Probe struct {
	ID      uint32
	Size    uint16 // of the whole frame, header to AEAD tag
	Padding int    // bytes behind the fields
}

// Append adds the message.
func (m Probe) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, CtlProbe, 0), m.Size)
	return appendZero(binary.BigEndian.AppendUint32(dst, m.ID), m.Padding)
}

// ProbeFor is the probe whose frame has size bytes, which must be at least 52.
func ProbeFor(id uint32, size int) Probe {
	return Probe{ID: id, Size: uint16(size), Padding: size - SealedOverhead - 8}
}

// ParseProbe reads a probe.
func ParseProbe(b []byte) (Probe, error) {
	c, err := control(b, CtlProbe, "probe")
	if err != nil {
		return Probe{}, err
	}
	c.Zero(1)
	m := Probe{Size: c.U16(), ID: c.U32()}
	m.Padding = len(c.B)
	if m.Padding > MaxProbe {
		return Probe{}, wrong("probe", ErrLength)
	}
	c.Zero(len(c.B))
	return m, c.end("probe")
}

// ProbeAck tells that a probe of that size arrived.
//
//	type 1 | zero 1 | size 2 | id 4
type ProbeAck struct {
	ID   uint32
	Size uint16 // as received
}

// Append adds the message.
func (m ProbeAck) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, CtlProbeAck, 0), m.Size)
	return binary.BigEndian.AppendUint32(dst, m.ID)
}

// ParseProbeAck reads a probe's answer.
func ParseProbeAck(b []byte) (ProbeAck, error) {
	c, err := control(b, CtlProbeAck, "probe ack")
	if err != nil {
		return ProbeAck{}, err
	}
	c.Zero(1)
	m := ProbeAck{Size: c.U16(), ID: c.U32()}
	return m, c.end("probe ack")
}

// ControlRekey1 and ControlRekey2 carry the Noise messages of a session's new key, bound to the handshake whose
// key sealed the first.
//
//	type 1 | noise 160
type ControlRekey1 struct{ Noise [Noise1Len]byte }

// Append adds the message.
func (m ControlRekey1) Append(dst []byte) []byte {
	return append(append(dst, CtlRekey1), m.Noise[:]...)
}

// ParseControlRekey1 reads a first rekey message.
func ParseControlRekey1(b []byte) (ControlRekey1, error) {
	var m ControlRekey1
	c, err := control(b, CtlRekey1, "control rekey 1")
	if err != nil {
		return m, err
	}
	c.fill(m.Noise[:])
	return m, c.end("control rekey 1")
}

// ControlRekey2 answers a ControlRekey1.
//
//	type 1 | noise 112
type ControlRekey2 struct{ Noise [Noise2Len]byte }

// Append adds the message.
func (m ControlRekey2) Append(dst []byte) []byte {
	return append(append(dst, CtlRekey2), m.Noise[:]...)
}

// ParseControlRekey2 reads a second rekey message.
func ParseControlRekey2(b []byte) (ControlRekey2, error) {
	var m ControlRekey2
	c, err := control(b, CtlRekey2, "control rekey 2")
	if err != nil {
		return m, err
	}
	c.fill(m.Noise[:])
	return m, c.end("control rekey 2")
}

// Proof is the sealed round trip that opens a new path for use: the source sends it on the path, the end sends
// it back as an answer.
//
//	type 1 | answer 1 | zero 2 | path id 16
type Proof struct {
	Answer bool
	ID     PathID
}

// Append adds the message.
func (m Proof) Append(dst []byte) []byte {
	answer := byte(0)
	if m.Answer {
		answer = 1
	}
	return append(append(dst, CtlProof, answer, 0, 0), m.ID[:]...)
}

// ParseProof reads a proof.
func ParseProof(b []byte) (Proof, error) {
	c, err := control(b, CtlProof, "proof")
	if err != nil {
		return Proof{}, err
	}
	answer := c.U8()
	c.Zero(2)
	m := Proof{Answer: answer == 1}
	c.fill(m.ID[:])
	if answer > 1 {
		return Proof{}, wrong("proof", ErrValue)
	}
	return m, c.end("proof")
}

// MaxEcho bounds the payload of an echo.
const MaxEcho = 1024

// Echo is the ping between two ends of a session.
//
//	type 1 | id 8 | time 8 | payload ≤ 1024
type Echo struct {
	ID, Time uint64
	Payload  []byte
}

// Append adds the message.
func (m Echo) Append(dst []byte) []byte { return appendEcho(dst, CtlEcho, m) }

// ParseEcho reads an echo.
func ParseEcho(b []byte) (Echo, error) { return parseEcho(b, CtlEcho, "echo") }

// EchoReply gives an Echo back unchanged.
//
//	type 1 | id 8 | time 8 | payload ≤ 1024
type EchoReply Echo

// Append adds the message.
func (m EchoReply) Append(dst []byte) []byte { return appendEcho(dst, CtlEchoReply, Echo(m)) }

// ParseEchoReply reads an echo's answer.
func ParseEchoReply(b []byte) (EchoReply, error) {
	m, err := parseEcho(b, CtlEchoReply, "echo reply")
	return EchoReply(m), err
}

func appendEcho(dst []byte, typ uint8, m Echo) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, typ), m.ID)
	return append(binary.BigEndian.AppendUint64(dst, m.Time), m.Payload...)
}

func parseEcho(b []byte, typ uint8, what string) (Echo, error) {
	c, err := control(b, typ, what)
	if err != nil {
		return Echo{}, err
	}
	m := Echo{ID: c.U64(), Time: c.U64()}
	if c.Bad || len(c.B) > MaxEcho {
		return Echo{}, wrong(what, ErrLength)
	}
	m.Payload = c.rest()
	return m, c.end(what)
}

// Codes of a ControlError.
const (
	ErrorSession = 1 // the session ends here
	ErrorPath    = 2 // the path named last is not known here
	ErrorPolicy  = 3 // this peer may not
)

// MaxErrorText bounds the text of an error.
const MaxErrorText = 128

// ControlError tells the other end why something ended.
//
//	type 1 | zero 1 | code 2 | text ≤ 128
type ControlError struct {
	Code uint16
	Text string
}

// Append adds the message; a longer text is cut.
func (m ControlError) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, CtlError, 0), m.Code)
	return append(dst, m.Text[:min(len(m.Text), MaxErrorText)]...)
}

// ParseControlError reads an error.
func ParseControlError(b []byte) (ControlError, error) {
	c, err := control(b, CtlError, "control error")
	if err != nil {
		return ControlError{}, err
	}
	c.Zero(1)
	m := ControlError{Code: c.U16()}
	if c.Bad || len(c.B) > MaxErrorText {
		return ControlError{}, wrong("control error", ErrLength)
	}
	m.Text = string(c.rest())
	return m, c.end("control error")
}
