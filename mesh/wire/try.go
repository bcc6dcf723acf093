package wire

import "net/netip"

// Try asks whether the neighbour is reached at another address or by another carrier too. Where it comes from moves nothing.
//
//	random 8 | zero 18, so that the answer is no longer
type Try struct{ Random [8]byte }

// Type is MessageTry.
func (Try) Type() uint8 { return MessageTry }

// Append adds the body.
func (m Try) Append(dst []byte) []byte { return appendZero(append(dst, m.Random[:]...), EndpointLen) }

// ParseTry reads a try.
func ParseTry(b []byte) (Try, error) {
	c := fields(b)
	var m Try
	c.fill(m.Random[:])
	c.Zero(EndpointLen)
	return m, c.end("try")
}

// Tried answers a Try to where it came from, and tells where that is as seen here.
//
//	random 8 (echoed) | address 16 | port 2
type Tried struct {
	Random   [8]byte
	Observed netip.AddrPort
}

// Type is MessageTried.
func (Tried) Type() uint8 { return MessageTried }

// Append adds the body.
func (m Tried) Append(dst []byte) []byte {
	return AppendEndpoint(append(dst, m.Random[:]...), m.Observed)
}

// ParseTried reads a tried.
func ParseTried(b []byte) (Tried, error) {
	c := fields(b)
	var m Tried
	c.fill(m.Random[:])
	m.Observed = c.endpoint()
	return m, c.end("tried")
}
