package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// question is what one message asks.
type question struct {
	dnsmessage.Header
	dnsmessage.Question
	name string // in lower case, without the root's dot
	end  int    // of the question in the message
	size int    // that an answer over UDP may have
	edns bool
	opt  int // where the size in the OPT record stands, if that is the first additional record; else 0
}

// headerSize is the fixed part of a message; the question's name follows.
const headerSize = 12

// parseQuestion reads a message to us. reply is false for what gets no answer; rcode is what is wrong with it.
func parseQuestion(b []byte) (q question, rcode dnsmessage.RCode, reply bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return q, 0, false
	}
	q.Header, q.size, q.end = h, plainSize, headerSize
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if binary.BigEndian.Uint16(b[4:]) != 1 {
		return q, dnsmessage.RCodeFormatError, true
	}
	if q.Question, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	text := q.Name.String()
	q.name = strings.ToLower(strings.TrimSuffix(text, "."))
	// A name in full has a length in front of each label and the root's behind.
	q.end = headerSize + len(text) + 1 + 4
	if text == "." {
		q.end--
	}
	if q.end > len(b) || b[q.end-5] != 0 || p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		q.end = headerSize
		return q, dnsmessage.RCodeFormatError, true
	}
	for first := true; ; first = false {
		r, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
		if r.Type == dnsmessage.TypeOPT {
			q.edns, q.size = true, max(plainSize, int(r.Class))
			if first && binary.BigEndian.Uint16(b[6:])|binary.BigEndian.Uint16(b[8:]) == 0 && b[q.end] == 0 {
				q.opt = q.end + 3 // after the root's name and the type
			}
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
	}
	if q.Class != dnsmessage.ClassINET {
		return q, dnsmessage.RCodeRefused, true
	}
	return q, 0, true
}

// within reports whether name is zone or lies in it.
func within(name, zone string) bool {
	rest, ok := strings.CutSuffix(name, zone)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}

// response is an answer in the making.
type response struct {
	rcode         dnsmessage.RCode
	authoritative bool
	truncated     bool
	records       []record
	zone          string // whose SOA record says how long a "no" is good for; empty: none
}

// record is one about the question's name.
type record struct {
	typ    dnsmessage.Type
	addr   netip.Addr      // of A and AAAA
	target dnsmessage.Name // of PTR and SRV
	port   uint16          // of SRV
}

// refuse is an answer with nothing but a code.
func (q *question) refuse(rcode dnsmessage.RCode, tcp bool) []byte {
	return q.pack(&response{rcode: rcode}, tcp)
}

// pack is an answer as a message; one that does not fit goes without its records.
func (q *question) pack(m *response, tcp bool) []byte {
	b := q.build(m)
	if !tcp && len(b) > min(q.size, ednsSize) {
		m.truncated, m.records, m.zone = true, nil, ""
		b = q.build(m)
	}
	return b
}

// build writes a message with the Builder: a dnsmessage.Message would link the code of every type there is.
func (q *question) build(m *response) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.ID, Response: true, OpCode: q.OpCode, RecursionDesired: q.RecursionDesired, RecursionAvailable: true,
		CheckingDisabled: q.CheckingDisabled, RCode: m.rcode, Authoritative: m.authoritative, Truncated: m.truncated,
	})
	b.EnableCompression()
	err := b.StartQuestions()
	if err == nil && q.end > headerSize {
		err = b.Question(q.Question)
	}
	if err == nil {
		err = b.StartAnswers()
	}
	for _, r := range m.records {
		if err == nil {
			err = q.addRecord(&b, r)
		}
	}
	if asked := q.Type == dnsmessage.TypeSOA && q.name == m.zone; err == nil && m.zone != "" {
		if !asked {
			err = b.StartAuthorities()
		}
		if err == nil {
			err = addZone(&b, m.zone)
		}
	}
	if err == nil && q.edns {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(".")}
		err = errors.Join(b.StartAdditionals(), h.SetEDNS0(ednsSize, 0, false))
		if err == nil {
			err = b.OPTResource(h, dnsmessage.OPTResource{})
		}
	}
	out, e := b.Finish()
	if err != nil || e != nil {
		return nil // never of what was parsed
	}
	return out
}

func (q *question) addRecord(b *dnsmessage.Builder, r record) error {
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	switch r.typ {
	case dnsmessage.TypeA:
		return b.AResource(h, dnsmessage.AResource{A: r.addr.As4()})
	case dnsmessage.TypeAAAA:
		return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: r.addr.As16()})
	case dnsmessage.TypePTR:
		return b.PTRResource(h, dnsmessage.PTRResource{PTR: r.target})
	}
	return b.SRVResource(h, dnsmessage.SRVResource{Port: r.port, Target: r.target})
}

// addZone says how long a "no" about names in a zone is good for.
func addZone(b *dnsmessage.Builder, zone string) error {
	name, err := dnsmessage.NewName(zone + ".")
	if err != nil {
		return err
	}
	return b.SOAResource(dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: negativeTTL}, dnsmessage.SOAResource{
		NS: name, MBox: name, Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, MinTTL: negativeTTL,
	})
}

// busy is the answer to a question for which there is no place.
func (s *Server) busy(b []byte) []byte {
	q, _, reply := parseQuestion(b)
	if !reply {
		return nil
	}
	s.failed.Add(1)
	return q.refuse(dnsmessage.RCodeServerFailure, true)
}
