package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Keep has no body: it shows that the link, and the key that sealed it, live.
type Keep struct{}

// Type is MessageKeep.
func (Keep) Type() uint8 { return MessageKeep }

// Append adds nothing.
func (Keep) Append(dst []byte) []byte { return dst }

// ParseKeep reads a keep.
func ParseKeep(b []byte) (Keep, error) {
	c := fields(b)
	return Keep{}, c.end("keep")
}

// Ping asks for a Pong.
//
//	id 4 | time 8
type Ping struct {
	ID   uint32
	Time uint64 // the sender's own, any unit; comes back untouched
}

// Type is MessagePing.
func (Ping) Type() uint8 { return MessagePing }

// Append adds the body.
func (m Ping) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.ID)
	return binary.BigEndian.AppendUint64(dst, m.Time)
}

// ParsePing reads a ping.
func ParsePing(b []byte) (Ping, error) {
	c := fields(b)
	m := Ping{ID: c.U32(), Time: c.U64()}
	return m, c.end("ping")
}

// Pong answers a Ping and tells where it came from as seen here.
//
//	id 4 | time 8 | address 16 | port 2
type Pong struct {
	ID       uint32
	Time     uint64
	Observed netip.AddrPort // invalid if the carrier has no IP address
}

// Type is MessagePong.
func (Pong) Type() uint8 { return MessagePong }

// Append adds the body.
func (m Pong) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.ID)
	dst = binary.BigEndian.AppendUint64(dst, m.Time)
	return AppendEndpoint(dst, m.Observed)
}

// ParsePong reads a pong.
func ParsePong(b []byte) (Pong, error) {
	c := fields(b)
	m := Pong{ID: c.U32(), Time: c.U64(), Observed: c.endpoint()}
	return m, c.end("pong")
}

// EndpointLen is an address of 16 bytes (IPv4 mapped into IPv6) and a port of 2.
const EndpointLen = 18

// AppendEndpoint adds an address and port; an invalid one is 18 zero bytes.
func AppendEndpoint(dst []byte, a netip.AddrPort) []byte {
	var b [16]byte
	if a.IsValid() {
		b = a.Addr().As16()
	}
	if b == [16]byte{} {
		return appendZero(dst, EndpointLen)
	}
	return binary.BigEndian.AppendUint16(append(dst, b[:]...), a.Port())
}

func (c *cursor) endpoint() netip.AddrPort {
	b := c.Take(16)
	port := c.U16()
	if b == nil || !slices.ContainsFunc(b, func(v byte) bool { return v != 0 }) {
		c.Bad = c.Bad || port != 0
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}

// Rekey1 carries the first Noise message of a new key; the key that sealed this frame is what it is bound to.
//
//	noise 160
type Rekey1 struct{ Noise [Noise1Len]byte }

// Type is MessageRekey1.
func (Rekey1) Type() uint8 { return MessageRekey1 }

// Append adds the body.
func (m Rekey1) Append(dst []byte) []byte { return append(dst, m.Noise[:]...) }

// ParseRekey1 reads a first rekey message.
func ParseRekey1(b []byte) (Rekey1, error) {
	var m Rekey1
	c := fields(b)
	c.fill(m.Noise[:])
	return m, c.end("rekey 1")
}

// Rekey2 carries the second Noise message.
//
//	noise 112
type Rekey2 struct{ Noise [Noise2Len]byte }

// Type is MessageRekey2.
func (Rekey2) Type() uint8 { return MessageRekey2 }

// Append adds the body.
func (m Rekey2) Append(dst []byte) []byte { return append(dst, m.Noise[:]...) }

// ParseRekey2 reads a second rekey message.
func ParseRekey2(b []byte) (Rekey2, error) {
	var m Rekey2
	c := fields(b)
	c.fill(m.Noise[:])
	return m, c.end("rekey 2")
}

// Challenge is sent to a new address of the peer; only a Response from there moves the link.
//
//	random 8
type Challenge struct{ Random [8]byte }

// Type is MessageChallenge.
func (Challenge) Type() uint8 { return MessageChallenge }

// Append adds the body.
func (m Challenge) Append(dst []byte) []byte { return append(dst, m.Random[:]...) }

// ParseChallenge reads a challenge.
func ParseChallenge(b []byte) (Challenge, error) {
	var m Challenge
	c := fields(b)
	c.fill(m.Random[:])
	return m, c.end("challenge")
}

// Response echoes a Challenge to where it came from.
//
//	random 8
type Response struct{ Random [8]byte }

// Type is MessageResponse.
func (Response) Type() uint8 { return MessageResponse }

// Append adds the body.
func (m Response) Append(dst []byte) []byte { return append(dst, m.Random[:]...) }

// ParseResponse reads a response.
func ParseResponse(b []byte) (Response, error) {
	var m Response
	c := fields(b)
	c.fill(m.Random[:])
	return m, c.end("response")
}

// Port asks, from the port that a lane's frames leave by and to the one where they would go, whether they arrive there.
//
//	lane 1 | random 8
type Port struct {
	Lane   uint8
	Random [8]byte
}

// Type is MessagePort.
func (Port) Type() uint8 { return MessagePort }

// Append adds the body.
func (m Port) Append(dst []byte) []byte { return append(append(dst, m.Lane), m.Random[:]...) }

// ParsePort reads a port.
func ParsePort(b []byte) (Port, error) {
	c := fields(b)
	m := Port{Lane: c.U8()}
	c.fill(m.Random[:])
	if err := c.end("port"); err != nil {
		return Port{}, err
	}
	if m.Lane >= MaxLanes {
		return Port{}, wrong("port", ErrValue)
	}
	return m, nil
}

// PortOpen echoes a Port to where it came from, from where it arrived.
//
//	lane 1 | random 8
type PortOpen struct {
	Lane   uint8
	Random [8]byte
}

// Type is MessagePortOpen.
func (PortOpen) Type() uint8 { return MessagePortOpen }

// Append adds the body.
func (m PortOpen) Append(dst []byte) []byte { return Port(m).Append(dst) }

// ParsePortOpen reads a port open.
func ParsePortOpen(b []byte) (PortOpen, error) {
	m, err := ParsePort(b)
	return PortOpen(m), err
}

// Ack answers a request that has no answer of its own.
//
//	request 4
type Ack struct{ Request uint32 }

// Type is MessageAck.
func (Ack) Type() uint8 { return MessageAck }

// Append adds the body.
func (m Ack) Append(dst []byte) []byte { return binary.BigEndian.AppendUint32(dst, m.Request) }

// ParseAck reads an ack.
func ParseAck(b []byte) (Ack, error) {
	c := fields(b)
	m := Ack{Request: c.U32()}
	return m, c.end("ack")
}

// Reasons of a Bye.
const (
	ByeShutdown = 1 // the node stops
	ByeClosed   = 2 // the link is not wanted any more
	ByeRefused  = 3 // no policy admits the peer
	ByeRevoked  = 4 // the peer's key is revoked
)

// Bye ends the link; nothing answers it.
//
//	reason 1
type Bye struct{ Reason uint8 }

// Type is MessageBye.
func (Bye) Type() uint8 { return MessageBye }

// Append adds the body.
func (m Bye) Append(dst []byte) []byte { return append(dst, m.Reason) }

// ParseBye reads a bye.
func ParseBye(b []byte) (Bye, error) {
	c := fields(b)
	m := Bye{Reason: c.U8()}
	return m, c.end("bye")
}
