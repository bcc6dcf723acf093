package member

import (
	"encoding/binary"
	"fmt"
)

// Service is the name of the issuer's mesh service. A Request is the header of a stream to it, a Reply what the stream is
// answered with; nothing more goes over it. It is open to guests.
const Service = "join"

// Op is what is asked.
type Op uint8

// Asked of an issuer.
const (
	OpChain Op = 1 // its own certificate and the admin list: Statements
	OpJoin  Op = 2 // a certificate, for the proof of an invite's secret
	OpRenew Op = 3 // the next certificate, for the holder of one
)

// Request is what a node asks of an issuer. Who asks is known by the session.
type Request struct {
	Op     Op
	Invite InviteID // of OpJoin
	Proof  [32]byte // of OpJoin
	Name   string   // the name that a joiner would like; "" is no wish
}

// Append encodes the request: version 1 │ op 1 │ invite 8 │ proof 32 │ name {length 1, text}.
func (r Request) Append(dst []byte) []byte {
	dst = append(dst, messageVersion, byte(r.Op))
	dst = append(append(dst, r.Invite[:]...), r.Proof[:]...)
	return appendText(dst, r.Name)
}

const messageVersion = 1

// ParseRequest decodes a request.
func ParseRequest(b []byte) (Request, error) {
	c := fields(b)
	version := c.U8()
	r := Request{Op: Op(c.U8()), Invite: InviteID(c.Take(8)), Proof: [32]byte(c.Take(32)), Name: c.text(MaxName)}
	c.Bad = c.Bad || version != messageVersion || r.Op < OpChain || r.Op > OpRenew || r.Name != "" && !ValidName(r.Name)
	return r, c.end("request")
}

// Status is what became of a request.
type Status uint8

// Answers of an issuer.
const (
	StatusDone    Status = 1 // the statements are in the reply
	StatusPending Status = 2 // a person has to approve it: ask again after Retry
	StatusRefused Status = 3 // and Reason says why
	StatusBusy    Status = 4 // ask again after Retry
)

// MaxReason bounds a reason.
const MaxReason = 200

// Reply answers a Request. Its statements are the admin list, the issuer's certificate and that of who asked, in this
// order, as far as there are any.
type Reply struct {
	Status     Status
	Retry      uint16 // seconds
	Reason     string // for people
	Statements [][]byte
}

// Append encodes the reply: version 1 │ status 1 │ retry_s 2 │ reason {length 1, text} │ each statement {length 2, bytes}.
func (r Reply) Append(dst []byte) []byte {
	dst = append(dst, messageVersion, byte(r.Status))
	dst = binary.BigEndian.AppendUint16(dst, r.Retry)
	dst = appendText(dst, r.Reason)
	for _, s := range r.Statements {
		dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
	}
	return dst
}

// maxReplied bounds the statements of a reply.
const maxReplied = 4

// ParseReply decodes a reply.
func ParseReply(b []byte) (Reply, error) {
	c := fields(b)
	version := c.U8()
	r := Reply{Status: Status(c.U8()), Retry: c.U16(), Reason: c.text(MaxReason)}
	c.Bad = c.Bad || version != messageVersion || r.Status < StatusDone || r.Status > StatusBusy
	for !c.Bad && len(c.B) > 0 {
		n := int(c.U16())
		if n == 0 || n > MaxStatement || len(r.Statements) == maxReplied {
			return Reply{}, fmt.Errorf("reply: %w", ErrFormat)
		}
		r.Statements = append(r.Statements, append([]byte(nil), c.Take(n)...))
	}
	return r, c.end("reply")
}
