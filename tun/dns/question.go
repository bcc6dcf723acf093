package dns

import (
	"encoding/binary"
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

// reply begins an answer to q: its header, the question again, and what may stand in the sections.
func (q *question) reply(rcode dnsmessage.RCode) *dnsmessage.Message {
	m := &dnsmessage.Message{Header: dnsmessage.Header{
		ID: q.ID, Response: true, OpCode: q.OpCode, RecursionDesired: q.RecursionDesired, RecursionAvailable: true,
		CheckingDisabled: q.CheckingDisabled, RCode: rcode,
	}}
	if q.end > headerSize {
		m.Questions = []dnsmessage.Question{q.Question}
	}
	return m
}

// pack ends an answer: the OPT record for who sent one, and as much as fits.
func (q *question) pack(m *dnsmessage.Message, tcp bool) []byte {
	if q.edns {
		r := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		r.Header.Name = dnsmessage.MustNewName(".")
		if r.Header.SetEDNS0(ednsSize, 0, false) == nil {
			m.Additionals = append(m.Additionals, r)
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil // never of what was parsed
	}
	if !tcp && len(b) > min(q.size, ednsSize) {
		m.Truncated, m.Answers, m.Authorities = true, nil, nil
		b, _ = m.Pack()
	}
	return b
}

// busy is the answer to a question for which there is no place.
func (s *Server) busy(b []byte) []byte {
	q, _, reply := parseQuestion(b)
	if !reply {
		return nil
	}
	s.failed.Add(1)
	return q.pack(q.reply(dnsmessage.RCodeServerFailure), true)
}
