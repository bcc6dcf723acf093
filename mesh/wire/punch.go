package wire

import (
	"encoding/binary"
	"net/netip"
)

// MaxCandidates bounds the addresses that one end asks the other to try.
const MaxCandidates = 8

// Steps of a Punch.
const (
	PunchOffer  = 1
	PunchAnswer = 2
)

// Kinds of a candidate: how its owner came to know the address.
const (
	CandidateHost      = 1 // an interface has it
	CandidateMapped    = 2 // the gateway gave it on request
	CandidateObserved  = 3 // a neighbour sees us there
	CandidatePredicted = 4 // where the NAT will probably put us next
)

// Kinds of a NAT, as its owner found it.
const (
	NATUnknown        = 0
	NATOpen           = 1 // none: observers see an address of an interface
	NATFullCone       = 2 // one outside address for all, and strangers get in
	NATRestricted     = 3 // … who was sent to gets in, from any port
	NATPortRestricted = 4 // … only from the port that was sent to; also where nothing better is known
	NATSymmetric      = 5 // another outside address for each destination
	NATSequential     = 6 // the same, and the next one can be told
)

// PunchCGNAT is the flag of a Punch whose sender has reason to think that its provider translates, too.
const PunchCGNAT = 1

// Candidate is an address at which its owner may be reached.
type Candidate struct {
	Kind uint8
	Addr netip.AddrPort
}

// Punch offers or answers addresses to try for a direct link. Both ends then wait for PunchGo.
//
//	type 1 | step 1 | nat 1 | flags 1 | id 4 | n 1 | n × { kind 1, address 16, port 2 }
type Punch struct {
	Step, NAT, Flags uint8
	ID               uint32 // of the attempt, chosen by who offers
	Candidates       []Candidate
}

// Append adds the message; candidates beyond MaxCandidates are left out.
func (m Punch) Append(dst []byte) []byte {
	all := m.Candidates[:min(len(m.Candidates), MaxCandidates)]
	dst = binary.BigEndian.AppendUint32(append(dst, CtlPunch, m.Step, m.NAT, m.Flags), m.ID)
	dst = append(dst, uint8(len(all)))
	for _, c := range all {
		dst = AppendEndpoint(append(dst, c.Kind), c.Addr)
	}
	return dst
}

// ParsePunch reads a punch.
func ParsePunch(b []byte) (Punch, error) {
	c, err := control(b, CtlPunch, "punch")
	if err != nil {
		return Punch{}, err
	}
	m := Punch{Step: c.U8(), NAT: c.U8(), Flags: c.U8(), ID: c.U32()}
	n := int(c.U8())
	if c.Bad || len(c.B) != n*(1+EndpointLen) {
		return Punch{}, wrong("punch", ErrLength)
	}
	if n > MaxCandidates || m.Step < PunchOffer || m.Step > PunchAnswer {
		return Punch{}, wrong("punch", ErrValue)
	}
	for range n {
		m.Candidates = append(m.Candidates, Candidate{Kind: c.U8(), Addr: c.endpoint()})
		if !m.Candidates[len(m.Candidates)-1].Addr.IsValid() {
			return Punch{}, wrong("punch", ErrValue)
		}
	}
	return m, c.end("punch")
}

// PunchGo has the other end send its handshakes at once; the sender begins when this should have arrived.
//
//	type 1 | zero 3 | id 4
type PunchGo struct{ ID uint32 }

// Append adds the message.
func (m PunchGo) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, CtlPunchGo, 0, 0, 0), m.ID)
}

// ParsePunchGo reads a go.
func ParsePunchGo(b []byte) (PunchGo, error) {
	c, err := control(b, CtlPunchGo, "punch go")
	if err != nil {
		return PunchGo{}, err
	}
	c.Zero(3)
	m := PunchGo{ID: c.U32()}
	return m, c.end("punch go")
}
