package peering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Bounds of a record.
const (
	MaxRecord  = 8192 // bytes
	MaxExports = 15   // of one side; with those of one cluster an app has all the services that it may
	MaxVerbs   = 8
	MaxVerb    = 32
	maxGates   = member.MaxContacts

	recordVersion = 1
	kindRecord    = 1
	kindEnd       = 2
	signatureLen  = 64
)

// Purposes of signatures.
const (
	purposeRecord = "peering"
	purposeEnd    = "peering-end"
	purposeOffer  = "peering-offer"
	purposePass   = "peering-pass"
)

// Messaging says who of the other cluster may write to ours.
type Messaging uint8

// The choices, rising.
const (
	MessagingNo     Messaging = iota
	MessagingAdmins           // the accounts of its administrators
	MessagingAll
)

var messagingWords = [...]string{"no", "admins", "all"}

func (m Messaging) String() string {
	if int(m) < len(messagingWords) {
		return messagingWords[m]
	}
	return "unknown"
}

// ParseMessaging reads a choice as people write it.
func ParseMessaging(s string) (Messaging, error) {
	for i, w := range messagingWords {
		if w == s {
			return Messaging(i), nil
		}
	}
	return 0, fmt.Errorf("messaging %q: want no, admins or all", s)
}

// Export is one thing that a cluster lets the other use, under a name of which the other makes NAME@CLUSTER.
type Export struct {
	Name    string
	Type    string     // of the service, as node services shows it: tcp, socks, …; a subnet is of type socks
	Service string     // in the own cluster; empty: a subnet
	Node    key.Public // the one that offers it; the zero key: whichever does, and has Tag
	Tag     string
	Port    uint16 // told to the other side; 0: none
	// Subnet is reached by streams from the gateway, at ports Low to High: one address and port as type tcp, and otherwise as
	// type socks, where each stream says its target.
	Subnet    netip.Prefix
	Low, High uint16
}

// Grant is all that one cluster lets the other do. The zero value is nothing.
type Grant struct {
	Exports   []Export // in order of their names
	Messaging Messaging
	Verbs     []string // control verbs, in order
	Nodes     uint16   // of the other cluster that may be here at once; 0: as many as there is room for
	Rate      uint64   // bytes a second and direction, for each of its nodes and exports; 0: no limit
	Quota     uint64   // bytes in both directions within 30 days; 0: no limit
}

// Side is one of the two clusters.
type Side struct {
	Cluster key.Public
	Admin   key.Public // who signs for it
	List    []byte     // its admin list, which names Admin
	Name    string     // how it wants to be called
	Gates   []member.Contact
	Gives   Grant
}

// Record is what the administrators of two clusters signed, the lower cluster key first. Of a pair of clusters the record
// with the highest Seq counts.
type Record struct {
	Seq     uint64
	Issued  int64 // unix seconds
	Expires int64 // unix seconds; 0: never
	Sides   [2]Side
	Sigs    [2][signatureLen]byte // zero: not signed yet
}

// Pair names two clusters, whatever their order.
type Pair [16]byte

// PairOf is the name of a pair.
func PairOf(a, b key.Public) Pair {
	if b.Less(a) {
		a, b = b, a
	}
	buf := append([]byte("skywire peering pair 1"), a[:]...)
	h := blake2s.Sum256(append(buf, b[:]...))
	return Pair(h[:16])
}

// Pair is the pair of clusters of the record.
func (r *Record) Pair() Pair { return PairOf(r.Sides[0].Cluster, r.Sides[1].Cluster) }

// Of returns the side of a cluster and the other one; ok is false if it has none.
func (r *Record) Of(cluster key.Public) (own, other *Side, ok bool) {
	switch cluster {
	case r.Sides[0].Cluster:
		return &r.Sides[0], &r.Sides[1], true
	case r.Sides[1].Cluster:
		return &r.Sides[1], &r.Sides[0], true
	}
	return nil, nil, false
}

// NewRecord puts the two sides in order.
func NewRecord(a, b Side) *Record {
	if b.Cluster.Less(a.Cluster) {
		a, b = b, a
	}
	return &Record{Sides: [2]Side{a, b}}
}

// body is what both sign:
//
//	kind 1 │ version 1 │ seq 8 │ issued 8 │ expires 8 │ the lower side │ the higher side
func (r *Record) body() []byte {
	b := []byte{kindRecord, recordVersion}
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Issued))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	return r.Sides[1].append(r.Sides[0].append(b))
}

// Append encodes the record: the body, then the signature of each side, in order.
func (r *Record) Append(dst []byte) []byte {
	dst = append(dst, r.body()...)
	return append(append(dst, r.Sigs[0][:]...), r.Sigs[1][:]...)
}

// Sign adds the signature of the side whose Admin this is.
func (r *Record) Sign(admin *key.Private) error {
	if _, err := ParseRecord(r.Append(nil)); err != nil {
		return fmt.Errorf("sign: %w", err) // what no one would take is not signed
	}
	for i := range r.Sides {
		if r.Sides[i].Admin == admin.Public() {
			r.Sigs[i] = admin.Sign(purposeRecord, key.NetworkID{}, r.body())
			return nil
		}
	}
	return fmt.Errorf("sign: %w", ErrUntrusted)
}

// Signed tells whether a side has signed, and may: its admin list, signed by its cluster key, lets its Admin admit nodes.
func (r *Record) Signed(i int) error {
	s := &r.Sides[i]
	if err := mayPeer(s.Cluster, s.List, s.Admin, member.MayIssue); err != nil {
		return err
	}
	if !s.Admin.Verify(purposeRecord, key.NetworkID{}, r.body(), r.Sigs[i][:]) {
		return fmt.Errorf("record: %w", ErrSignature)
	}
	return nil
}

// Verify tells whether both have signed.
func (r *Record) Verify() error {
	if err := r.Signed(0); err != nil {
		return err
	}
	return r.Signed(1)
}

// mayPeer checks a list and an admin in it: who may let nodes into the cluster may let another cluster in.
func mayPeer(cluster key.Public, list []byte, admin key.Public, powers member.Powers) error {
	s := member.New(member.Config{Cluster: cluster}, member.Instant{})
	if _, err := s.Put(member.Instant{}, list); err != nil || len(list) == 0 || member.Kind(list[0]) != member.KindAdmins {
		return fmt.Errorf("admin list of %s: %w", cluster.Short(), ErrSignature)
	}
	if s.Powers(admin)&powers == 0 {
		return fmt.Errorf("%s for cluster %s: %w", admin.Short(), cluster.Short(), ErrUntrusted)
	}
	return nil
}

// ParseRecord decodes a record; it does not check the signatures.
func ParseRecord(raw []byte) (*Record, error) {
	if len(raw) > MaxRecord || len(raw) < 2*signatureLen {
		return nil, fmt.Errorf("record: %w", ErrFormat)
	}
	c := &cursor{b: raw[:len(raw)-2*signatureLen]}
	kind, version := c.u8(), c.u8()
	r := &Record{Seq: c.u64(), Issued: c.unix(), Expires: c.unix()}
	c.bad = c.bad || kind != kindRecord || version != recordVersion || r.Seq == 0 || r.Expires != 0 && r.Expires <= r.Issued
	r.Sides[0], r.Sides[1] = c.side(), c.side()
	c.bad = c.bad || !r.Sides[0].Cluster.Less(r.Sides[1].Cluster)
	if err := c.end("record"); err != nil {
		return nil, err
	}
	sigs := raw[len(raw)-2*signatureLen:]
	r.Sigs[0], r.Sigs[1] = [signatureLen]byte(sigs[:signatureLen]), [signatureLen]byte(sigs[signatureLen:])
	return r, nil
}

// append encodes a side:
//
//	cluster 32 │ admin 32 │ list {length 2, bytes} │ name {length 1, text} │ gates 1, each {key 32, address length 1, text} │ grant
func (s *Side) append(dst []byte) []byte {
	dst = append(append(dst, s.Cluster[:]...), s.Admin[:]...)
	dst = appendText(appendBytes(dst, s.List), s.Name)
	return s.Gives.append(appendGates(dst, s.Gates))
}

func appendGates(dst []byte, gates []member.Contact) []byte {
	dst = append(dst, byte(len(gates)))
	for _, g := range gates {
		dst = appendText(append(dst, g.Key[:]...), g.Addr)
	}
	return dst
}

func (c *cursor) side() Side {
	return Side{
		Cluster: c.key(false), Admin: c.key(false), List: c.bytes(member.MaxStatement), Name: c.name(false), Gates: c.gates(), Gives: c.grant(),
	}
}

func (c *cursor) gates() (all []member.Contact) {
	n := int(c.u8())
	c.bad = c.bad || n == 0 || n > maxGates
	for range n {
		if c.bad {
			return nil
		}
		g := member.Contact{Key: c.key(false), Addr: c.text(member.MaxContactAddr)}
		c.bad = c.bad || g.Addr == ""
		all = append(all, g)
	}
	return all
}

// append encodes a grant:
//
//	exports 1, each {name, type, service {length 1, text}, node 32, tag {length 1, text}, port 2,
//	subnet {length 1, address, bits 1}, low 2, high 2} │ messaging 1 │ verbs 1, each {length 1, text} │ transit 1 (0: none) │
//	nodes 2 │ rate 8 │ quota 8
func (g *Grant) append(dst []byte) []byte {
	dst = append(dst, byte(len(g.Exports)))
	for _, e := range g.Exports {
		dst = appendText(appendText(appendText(dst, e.Name), e.Type), e.Service)
		dst = appendText(append(dst, e.Node[:]...), e.Tag)
		dst = appendPrefix(binary.BigEndian.AppendUint16(dst, e.Port), e.Subnet)
		dst = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, e.Low), e.High)
	}
	dst = append(dst, byte(g.Messaging), byte(len(g.Verbs)))
	for _, v := range g.Verbs {
		dst = appendText(dst, v)
	}
	dst = binary.BigEndian.AppendUint16(append(dst, 0), g.Nodes)
	dst = binary.BigEndian.AppendUint64(dst, g.Rate)
	return binary.BigEndian.AppendUint64(dst, g.Quota)
}

func (c *cursor) grant() (g Grant) {
	n := int(c.u8())
	c.bad = c.bad || n > MaxExports
	for i := range n {
		if c.bad {
			return Grant{}
		}
		e := Export{
			Name: c.name(false), Type: c.name(false), Service: c.text(64), Node: c.key(true), Tag: c.name(true), Port: c.u16(),
			Subnet: c.prefix(), Low: c.u16(), High: c.u16(),
		}
		c.bad = c.bad || !e.valid() || i > 0 && e.Name <= g.Exports[i-1].Name
		g.Exports = append(g.Exports, e)
	}
	g.Messaging = Messaging(c.u8())
	n = int(c.u8())
	c.bad = c.bad || g.Messaging > MessagingAll || n > MaxVerbs
	for i := range n {
		if c.bad {
			return Grant{}
		}
		v := c.text(MaxVerb)
		c.bad = c.bad || v == "" || i > 0 && v <= g.Verbs[i-1]
		g.Verbs = append(g.Verbs, v)
	}
	c.bad = c.u8() != 0 || c.bad // transit: refused until it can be metered
	g.Nodes, g.Rate, g.Quota = c.u16(), c.u64(), c.u64()
	return g
}

// valid tells whether an export is of one kind and whole.
func (e *Export) valid() bool {
	if e.Service == "" {
		one := e.Subnet.IsSingleIP() && e.Low == e.High
		return e.Subnet.IsValid() && e.Low > 0 && e.Low <= e.High && (e.Type == "tcp" && one || e.Type == "socks") && e.Tag == "" && e.Node.IsZero()
	}
	return !e.Subnet.IsValid() && e.Low == 0 && e.High == 0 && (e.Node.IsZero() || e.Tag == "") && !strings.Contains(e.Service, "@")
}

// Sort puts a grant into the order of records; false: a name or verb stands twice.
func (g *Grant) Sort() bool {
	sort.Slice(g.Exports, func(i, j int) bool { return g.Exports[i].Name < g.Exports[j].Name })
	slices.Sort(g.Verbs)
	for i := 1; i < len(g.Exports); i++ {
		if g.Exports[i].Name == g.Exports[i-1].Name {
			return false
		}
	}
	return len(slices.Compact(slices.Clone(g.Verbs))) == len(g.Verbs)
}

// Find returns the export of a name.
func (g *Grant) Find(name string) *Export {
	for i := range g.Exports {
		if g.Exports[i].Name == name {
			return &g.Exports[i]
		}
	}
	return nil
}

// after tells whether r replaces old. What was signed twice with one number is settled by the bytes, everywhere alike.
func (r *Record) after(old *Record) bool {
	return r.Seq > old.Seq || r.Seq == old.Seq && bytes.Compare(r.Append(nil), old.Append(nil)) > 0
}

// End is the word of one side that a peering is over: every record of the pair up to Seq, for ever.
type End struct {
	Low, High key.Public // clusters, in order
	Seq       uint64
	Issued    int64
	By        key.Public // the cluster whose admin signs
	Admin     key.Public
	List      []byte
}

// Pair is the pair that it ends.
func (e *End) Pair() Pair { return PairOf(e.Low, e.High) }

// Sign encodes the end:
//
//	kind 1 │ version 1 │ low 32 │ high 32 │ seq 8 │ issued 8 │ by 1 (0: low, 1: high) │ admin 32 │ list {length 2, bytes} │ signature 64
func (e *End) Sign(admin *key.Private) ([]byte, error) {
	who := admin.Public()
	b := append(append([]byte{kindEnd, recordVersion}, e.Low[:]...), e.High[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Issued))
	by := byte(0)
	if e.By == e.High {
		by = 1
	}
	b = append(append(b, by), who[:]...)
	b = appendBytes(b, e.List)
	sig := admin.Sign(purposeEnd, key.NetworkID{}, b)
	raw := append(b, sig[:]...)
	if _, err := ParseEnd(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseEnd decodes an end and checks its signature.
func ParseEnd(raw []byte) (*End, error) {
	if len(raw) > MaxRecord || len(raw) < signatureLen {
		return nil, fmt.Errorf("end: %w", ErrFormat)
	}
	at := len(raw) - signatureLen
	c := &cursor{b: raw[:at]}
	kind, version := c.u8(), c.u8()
	e := &End{Low: c.key(false), High: c.key(false), Seq: c.u64(), Issued: c.unix()}
	by := c.u8()
	e.Admin, e.List = c.key(false), c.bytes(member.MaxStatement)
	c.bad = c.bad || kind != kindEnd || version != recordVersion || by > 1 || e.Seq == 0 || !e.Low.Less(e.High)
	if err := c.end("end"); err != nil {
		return nil, err
	}
	if e.By = e.Low; by == 1 {
		e.By = e.High
	}
	if err := mayPeer(e.By, e.List, e.Admin, member.MayIssue|member.MayRevoke); err != nil {
		return nil, err
	}
	if !e.Admin.Verify(purposeEnd, key.NetworkID{}, raw[:at], raw[at:]) {
		return nil, fmt.Errorf("end: %w", ErrSignature)
	}
	return e, nil
}
