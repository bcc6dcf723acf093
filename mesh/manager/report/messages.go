package report

import (
	"strconv"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// Service is the name of the manager's service.
const Service = "manager"

// Version of these messages.
const Version = 1

// Methods that a node calls on a manager's stream, and the notification it may get.
const (
	MethodHello   = "node.hello"    // Hello → Welcome, once, first
	MethodPut     = "record.put"    // Record → PutResult
	MethodGet     = "records.get"   // Get → News
	MethodWant    = "paths.want"    // Want → Proposal, and notifications from then on
	NotifyPropose = "paths.propose" // Proposal
)

// MaxNews bounds the raw bytes in one News, so that it fits a line of signal in base64.
const MaxNews = 512 << 10

// Hello opens a stream.
type Hello struct {
	Version int           `json:"version"`
	Network key.NetworkID `json:"network"`
	Program string        `json:"program,omitempty"` // version of the node's program
}

// Welcome answers it.
type Welcome struct {
	Version int        `json:"version"`
	Manager key.Public `json:"manager"`
	Program string     `json:"program,omitempty"`
}

// Record is a signed record on its way, with its age as far as the sender knows it.
type Record struct {
	Raw  []byte  `json:"raw"`
	AgeS float64 `json:"age_s"`
}

// Age is AgeS as a duration.
func (r Record) Age() time.Duration {
	const most = 365 * 24 * 3600
	return time.Duration(min(max(r.AgeS, 0), most) * float64(time.Second))
}

// NewRecord wraps an entry of a database for sending.
func NewRecord(e *route.Entry, now time.Duration) Record {
	return Record{Raw: e.Raw, AgeS: e.Age(now).Seconds()}
}

// PutResult says what became of a record: the text of a route.Outcome.
type PutResult struct {
	Outcome string `json:"outcome"`
}

// Get asks for what the sender lacks. With a Sum alone it only asks whether both hold the same.
type Get struct {
	Sum    string `json:"sum,omitempty"`
	Digest []byte `json:"digest,omitempty"` // a route.Digest
}

// News answers it: records the sender of Get lacks within its digest, and keys of those that it has newer.
type News struct {
	Equal   bool         `json:"equal,omitempty"`
	Records []Record     `json:"records,omitempty"`
	Want    []key.Public `json:"want,omitempty"`
	More    bool         `json:"more,omitempty"` // ask again: not everything fitted
}

// Sum writes a database's checksum as text: JSON numbers are no home for 64 bits.
func Sum(s uint64) string { return strconv.FormatUint(s, 16) }

// Want asks for up to K disjoint paths to a node; K 0 ends the interest.
type Want struct {
	To key.Public `json:"to"`
	K  int        `json:"k"`
}

// Proposal is what a manager holds to be the best paths. Numbers of one manager rise; an older one is void. The node
// checks it against the records it holds itself.
type Proposal struct {
	Manager key.Public `json:"manager"`
	Number  uint64     `json:"number"`
	LifeS   int        `json:"life_s"` // from receipt
	To      key.Public `json:"to"`
	Paths   []Path     `json:"paths"`
}

// Path is one of them, as the manager measures it.
type Path struct {
	Hops []key.Public `json:"hops"` // both ends included
	RTT  float64      `json:"rtt_ms"`
	Loss float64      `json:"loss"`
	Cost uint64       `json:"cost"`
}

// NewPath turns a computed path into a message.
func NewPath(p route.Path) Path {
	return Path{Hops: p.Hops, RTT: float64(p.RTT.Microseconds()) / 1000, Loss: p.Loss, Cost: p.Cost}
}
