package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// forward hands a question on, and its answer back: of the resolvers in turn, the one that answered last first.
func (s *Server) forward(ctx context.Context, q question, b []byte, tcp bool) []byte {
	to := *s.resolvers.Load()
	if len(to) == 0 {
		return q.refuse(dnsmessage.RCodeRefused, tcp)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	best := int(s.best.Load())
	var poor []byte // an answer that says no more than that its resolver has none
	for try := 0; ctx.Err() == nil && try < max(2, len(to)); try++ {
		i := (best + try) % len(to)
		a, err := s.exchange(ctx, to[i], q, b, tcp)
		if err != nil {
			s.c.Log.Debug("resolver does not answer", "addr", to[i], "err", err)
			continue
		}
		if r := dnsmessage.RCode(a[3] & 15); r == dnsmessage.RCodeServerFailure || r == dnsmessage.RCodeRefused || r == dnsmessage.RCodeNotImplemented {
			poor = a
			continue
		}
		s.best.Store(uint32(i))
		s.learn(q, a)
		return s.fit(q, a, tcp)
	}
	if poor != nil {
		return s.fit(q, poor, tcp)
	}
	s.failed.Add(1)
	return q.refuse(dnsmessage.RCodeServerFailure, tcp)
}

// fit cuts an answer that is too large for the asker, who then asks over TCP.
func (s *Server) fit(q question, a []byte, tcp bool) []byte {
	if tcp || len(a) <= q.size {
		return a
	}
	return q.pack(&response{rcode: dnsmessage.RCode(a[3] & 15), truncated: true}, false)
}

// exchange asks one resolver. The question goes out under a number and in a case of letters of its own; the answer comes
// back with those of the asker.
func (s *Server) exchange(ctx context.Context, to netip.AddrPort, q question, b []byte, tcp bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	ask := slices.Clone(b)
	disguise(ask, q)
	a, err := s.ask(ctx, to, ask, q, tcp)
	if err == nil && !tcp && a[2]&truncatedBit != 0 && q.size >= ednsSize {
		// The asker would take more than we asked for: more is to be had over TCP.
		if whole, e := s.ask(ctx, to, ask, q, true); e == nil {
			a = whole
		}
	}
	if errors.Is(err, errForged) && !tcp { // one that changes the case of letters, or somebody who guesses
		a, err = s.ask(ctx, to, ask, q, true)
	}
	if err != nil {
		return nil, err
	}
	copy(a[:2], b[:2])
	copy(a[headerSize:q.end], b[headerSize:q.end])
	return a, nil
}

// truncatedBit is TC in the third byte of a message.
const truncatedBit = 2

// disguise gives a message a random number, its name a random case (RFC 5452, and draft-vixie-dnsext-dns0x20), and bounds
// the size that it states.
func disguise(b []byte, q question) {
	var r [2 + 32]byte
	rand.Read(r[:]) // never fails
	copy(b, r[:2])
	for i := headerSize; i < q.end-4; i++ {
		if c := b[i] | 0x20; c >= 'a' && c <= 'z' {
			n := i - headerSize
			b[i] = c &^ (r[2+n/8%32] >> (n % 8) & 1 << 5)
		}
	}
	if q.opt != 0 {
		binary.BigEndian.PutUint16(b[q.opt:], uint16(min(q.size, ednsSize)))
	}
}

// ask sends a message and waits for what answers it.
func (s *Server) ask(ctx context.Context, to netip.AddrPort, b []byte, q question, tcp bool) ([]byte, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, to.String()) // a port of its own for each question
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if tcp {
		if err := writeMessage(c, b, deadline); err != nil {
			return nil, err
		}
		a, err := readMessage(c, deadline)
		if err == nil && !answers(a, b, q, true) {
			err = errForged
		}
		return a, err
	}
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	a := make([]byte, maxUDP)
	for {
		n, err := c.Read(a)
		if err != nil {
			return nil, err
		}
		if answers(a[:n], b, q, false) {
			return a[:n], nil
		}
		if n >= 2 && [2]byte(a) == [2]byte(b) {
			return nil, errForged // the number fits, the rest does not: no guessing goes on
		}
	}
}

// answers reports whether a is an answer to the message b: bit by bit of the question, but for the case of its letters on
// a connection, which nobody else can write to.
func answers(a, b []byte, q question, tcp bool) bool {
	const response = 0x80
	if len(a) < q.end || [2]byte(a) != [2]byte(b) || a[2]&response == 0 || a[4] != 0 || a[5] != 1 {
		return false
	}
	a, b = a[headerSize:q.end], b[headerSize:q.end]
	return bytes.Equal(a, b) || tcp && bytes.EqualFold(a, b)
}

// learn tells the addresses in an answer.
func (s *Server) learn(q question, a []byte) {
	if s.c.Learned == nil || q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return
	}
	var p dnsmessage.Parser
	if _, err := p.Start(a); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	var found []netip.Addr
	least := uint32(maxTTL)
	for len(found) < maxLearned {
		h, err := p.AnswerHeader()
		if err != nil {
			break
		}
		switch {
		case h.Type == dnsmessage.TypeA:
			r, e := p.AResource()
			if err = e; e == nil {
				found = append(found, netip.AddrFrom4(r.A))
			}
		case h.Type == dnsmessage.TypeAAAA:
			r, e := p.AAAAResource()
			if err = e; e == nil {
				found = append(found, netip.AddrFrom16(r.AAAA))
			}
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			break
		}
		least = min(least, h.TTL)
	}
	if len(found) > 0 {
		s.c.Learned(q.name, found, time.Duration(least)*time.Second)
	}
}
