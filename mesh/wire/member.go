package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
)

// Limits of the messages that exchange the statements of a cluster.
const (
	MaxStatement   = 2048 // bytes of one signed statement
	StatementIDLen = 9
	MaxStatements  = 54 // ids of a page: it fits one frame
)

// StatementID is the first byte of a statement, its kind, and the first 8 bytes of H(statement, as signed).
type StatementID [StatementIDLen]byte

// MembersAnswer in Members.Flags asks for the receiver's own Members.
const MembersAnswer = 1

// MembersAll in Members.Flags and MembersList.Flags: certificates are among what is compared, not the lists alone.
const MembersAll = 2

// Members tells what the sender holds, in short. Whoever holds something else answers with a MembersList.
//
//	flags 1 | digest of the lists 8 | digest of all 8
type Members struct {
	Flags      uint8
	Lists, All [8]byte
}

// MembersDigest is the digest of statements whose ids are given in rising order: the first 8 bytes of H(the ids).
func MembersDigest(ids []StatementID) (d [8]byte) {
	b := make([]byte, 0, len(ids)*StatementIDLen)
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	h := blake2s.Sum256(b)
	return [8]byte(h[:8])
}

// Type is MessageMembers.
func (Members) Type() uint8 { return MessageMembers }

// Append adds the body.
func (m Members) Append(dst []byte) []byte {
	dst = append(append(dst, m.Flags), m.Lists[:]...)
	return append(dst, m.All[:]...)
}

// ParseMembers reads a members.
func ParseMembers(b []byte) (Members, error) {
	c := fields(b)
	m := Members{Flags: c.U8()}
	c.fill(m.Lists[:])
	c.fill(m.All[:])
	return m, c.end("members")
}

// MembersList is a page of the ids of what the sender holds, in rising order. It covers the ids from the one after the last
// of the page before (First) to its own last one (Last); the receiver sends what it holds in between and the page lacks.
//
//	flags 1 | first 9 | last 9 | n × id 9
type MembersList struct {
	Flags       uint8
	First, Last StatementID
	IDs         []StatementID
}

// Type is MessageMembersList.
func (MembersList) Type() uint8 { return MessageMembersList }

// Append adds the body.
func (m MembersList) Append(dst []byte) []byte {
	dst = append(append(append(dst, m.Flags), m.First[:]...), m.Last[:]...)
	for _, id := range m.IDs {
		dst = append(dst, id[:]...)
	}
	return dst
}

// ParseMembersList reads a page.
func ParseMembersList(b []byte) (MembersList, error) {
	c := fields(b)
	m := MembersList{Flags: c.U8()}
	c.fill(m.First[:])
	c.fill(m.Last[:])
	if len(c.B) > MaxStatements*StatementIDLen {
		return MembersList{}, wrong("members list", ErrTooLarge)
	}
	for len(c.B) > 0 && !c.Bad {
		var id StatementID
		c.fill(id[:])
		m.IDs = append(m.IDs, id)
	}
	if err := c.end("members list"); err != nil {
		return MembersList{}, err
	}
	return m, nil
}

// Statement is one signed statement of the cluster (mesh/member/SPEC.md). Nothing answers it.
type Statement struct{ Raw []byte }

// Type is MessageStatement.
func (Statement) Type() uint8 { return MessageStatement }

// Append adds the body.
func (m Statement) Append(dst []byte) []byte { return append(dst, m.Raw...) }

// ParseStatement reads a statement; what it says is not looked at.
func ParseStatement(b []byte) (Statement, error) {
	if len(b) == 0 || len(b) > MaxStatement {
		return Statement{}, wrong("statement", ErrLength)
	}
	c := fields(b)
	return Statement{Raw: c.rest()}, nil
}

// WayAsk is a guest's question how to get to a node that admits members.
//
//	request 4 | key 32 (zero: any of them)
type WayAsk struct {
	Request uint32
	Key     key.Public
}

// Type is MessageWayAsk.
func (WayAsk) Type() uint8 { return MessageWayAsk }

// Append adds the body.
func (m WayAsk) Append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, m.Request), m.Key[:]...)
}

// ParseWayAsk reads a question.
func ParseWayAsk(b []byte) (WayAsk, error) {
	c := fields(b)
	m := WayAsk{Request: c.U32()}
	c.fill(m.Key[:])
	return m, c.end("way ask")
}

// Way answers a WayAsk: the hops from the neighbour that answers to the node meant, both included; none if it knows no way.
//
//	request 4 | n × key 32
type Way struct {
	Request uint32
	Hops    []key.Public // well formed, not checked in full
}

// Type is MessageWay.
func (Way) Type() uint8 { return MessageWay }

// Append adds the body.
func (m Way) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	for _, k := range m.Hops {
		dst = append(dst, k[:]...)
	}
	return dst
}

// ParseWay reads an answer.
func ParseWay(b []byte) (Way, error) {
	c := fields(b)
	m := Way{Request: c.U32()}
	if len(c.B) > (MaxHops-1)*key.Size {
		return Way{}, wrong("way", ErrTooLarge)
	}
	for len(c.B) > 0 && !c.Bad {
		k, err := key.FromList(c.Take(min(key.Size, len(c.B))))
		if err != nil {
			return Way{}, wrong("way", err)
		}
		m.Hops = append(m.Hops, k)
	}
	return m, c.end("way")
}
