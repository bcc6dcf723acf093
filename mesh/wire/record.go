package wire

import (
	"encoding/binary"

	"skywire/mesh/key"
)

// MaxRecord is the largest signed record.
const MaxRecord = 4096

// Record carries one signed record as its origin made it; mesh/route reads it. RecordAck answers it.
//
//	record ≤ 4096
type Record struct{ Raw []byte }

// Type is MessageRecord.
func (Record) Type() uint8 { return MessageRecord }

// Append adds the body.
func (m Record) Append(dst []byte) []byte { return append(dst, m.Raw...) }

// ParseRecord reads the message; the record's own checks come later.
func ParseRecord(b []byte) (Record, error) {
	if len(b) == 0 || len(b) > MaxRecord {
		return Record{}, wrong("record", ErrLength)
	}
	c := fields(b)
	return Record{Raw: c.rest()}, nil
}

// RecordID names one edition of one node's record.
//
//	key 32 | number 8
type RecordID struct {
	Key    key.Public
	Number uint64
}

func (r RecordID) append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(append(dst, r.Key[:]...), r.Number)
}

func (c *cursor) recordID() RecordID {
	var r RecordID
	c.fill(r.Key[:])
	r.Number = c.U64()
	return r
}

// RecordAck answers a Record: it need not be sent again, whether it was taken or not.
//
//	key 32 | number 8
type RecordAck RecordID

// Type is MessageRecordAck.
func (RecordAck) Type() uint8 { return MessageRecordAck }

// Append adds the body.
func (m RecordAck) Append(dst []byte) []byte { return RecordID(m).append(dst) }

// ParseRecordAck reads an ack.
func ParseRecordAck(b []byte) (RecordAck, error) {
	c := fields(b)
	m := RecordAck(c.recordID())
	return m, c.end("record ack")
}

// RecordsDigest is one page of what the sender knows, sent when a link comes up; the receiver sends the records
// that are absent or older there. When the last page came, what no page named is absent. Ack answers each page.
//
//	request 4 | page 2 | pages 2 | entries 40 each
type RecordsDigest struct {
	Request     uint32
	Page, Pages uint16
	Records     []RecordID
}

// Type is MessageRecordsDigest.
func (RecordsDigest) Type() uint8 { return MessageRecordsDigest }

// Append adds the body.
func (m RecordsDigest) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Request)
	dst = binary.BigEndian.AppendUint16(dst, m.Page)
	dst = binary.BigEndian.AppendUint16(dst, m.Pages)
	for _, r := range m.Records {
		dst = r.append(dst)
	}
	return dst
}

// ParseRecordsDigest reads a page.
func ParseRecordsDigest(b []byte) (RecordsDigest, error) {
	c := fields(b)
	m := RecordsDigest{Request: c.U32(), Page: c.U16(), Pages: c.U16()}
	if c.Bad || len(c.B)%40 != 0 || len(c.B)/40 > MaxDigests {
		return RecordsDigest{}, wrong("records digest", ErrLength)
	}
	if m.Page >= m.Pages {
		return RecordsDigest{}, wrong("records digest", ErrValue)
	}
	for len(c.B) > 0 {
		m.Records = append(m.Records, c.recordID())
	}
	return m, c.end("records digest")
}

// RecordsSum is sent now and then in place of a RecordsDigest of many pages: a checksum of all records known. Who has another
// sum answers with its RecordsDigest; equal sums are not answered.
//
//	sum 8 | count 4
type RecordsSum struct {
	Sum   uint64
	Count uint32
}

// Type is MessageRecordsSum.
func (RecordsSum) Type() uint8 { return MessageRecordsSum }

// Append adds the body.
func (m RecordsSum) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(dst, m.Sum), m.Count)
}

// ParseRecordsSum reads a sum.
func ParseRecordsSum(b []byte) (RecordsSum, error) {
	c := fields(b)
	m := RecordsSum{Sum: c.U64(), Count: c.U32()}
	return m, c.end("records sum")
}
