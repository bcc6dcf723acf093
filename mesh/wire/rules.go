package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
)

// Rule is one path as two neighbours share it: the first label that the receiving one allotted, and the path.
//
//	label base 4 | path id 16
type Rule struct {
	Base uint32
	ID   PathID
}

// RulesDigest is the digest of a set of rules, in rising order of their bytes; the order given does not matter.
func RulesDigest(rules []Rule) [16]byte {
	sorted := slices.Clone(rules)
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := &sorted[i], &sorted[j]
		return cmp.Or(cmp.Compare(a.Base, b.Base), bytes.Compare(a.ID[:], b.ID[:])) < 0
	})
	var b []byte
	for _, r := range sorted {
		b = r.append(b)
	}
	return hash128(b)
}

func (r Rule) append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, r.Base), r.ID[:]...)
}

// Rules states which of the sender's labels the receiver may use. Equal sets are answered by Ack, others by
// RulesList pages of the labels that the receiver does use.
//
//	request 4 | count 4 | digest 16
type Rules struct {
	Request uint32
	Count   uint32
	Digest  [16]byte
}

// Type is MessageRules.
func (Rules) Type() uint8 { return MessageRules }

// Append adds the body.
func (m Rules) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	dst = binary.BigEndian.AppendUint32(dst, m.Count)
	return append(dst, m.Digest[:]...)
}

// ParseRules reads the statement.
func ParseRules(b []byte) (Rules, error) {
	c := fields(b)
	m := Rules{Request: c.U32(), Count: c.U32()}
	c.fill(m.Digest[:])
	return m, c.end("rules")
}

// MaxRules and MaxDigests are the entries of one page: a page and its frame stay below 548 bytes.
const (
	MaxRules   = 24
	MaxDigests = 12
)

// RulesList is one page of the rules that the sender uses at the receiver. The receiver removes what it holds
// for the sender and does not find, and answers Remove for what it finds and does not hold. The list is an
// answer and gets none.
//
//	request 4 | page 2 | pages 2 | entries 20 each
type RulesList struct {
	Request     uint32 // of the Rules answered
	Page, Pages uint16
	Rules       []Rule
}

// Type is MessageRulesList.
func (RulesList) Type() uint8 { return MessageRulesList }

// Append adds the body.
func (m RulesList) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	dst = binary.BigEndian.AppendUint16(dst, m.Page)
	dst = binary.BigEndian.AppendUint16(dst, m.Pages)
	for _, r := range m.Rules {
		dst = r.append(dst)
	}
	return dst
}

// ParseRulesList reads a page.
func ParseRulesList(b []byte) (RulesList, error) {
	c := fields(b)
	m := RulesList{Request: c.U32(), Page: c.U16(), Pages: c.U16()}
	if c.Bad || len(c.B)%20 != 0 || len(c.B)/20 > MaxRules {
		return RulesList{}, wrong("rules list", ErrLength)
	}
	if m.Page >= m.Pages {
		return RulesList{}, wrong("rules list", ErrValue)
	}
	for len(c.B) > 0 {
		r := Rule{Base: c.U32()}
		c.fill(r.ID[:])
		m.Rules = append(m.Rules, r)
	}
	return m, c.end("rules list")
}
