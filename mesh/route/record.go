package route

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"skywire/mesh/key"
)

// Bounds of a record. A record travels in one piece through every node of the mesh and is kept by all of them.
const (
	MaxRecord   = 4096 // bytes, signature included
	MaxLinks    = 64
	MaxServices = 32
	MaxAddrs    = 8
	MaxName     = 63 // bytes; also of a service's name
	MaxVersion  = 64
	MaxAddr     = 128
	MaxType     = 31
	MaxMeta     = 255

	headerLen    = 1 + 32 + 8 + 8 + 8
	signatureLen = 64
	itemHeader   = 3
	linkLen      = 32 + 4 + 4 + 4
	version      = 1
	kind         = "record"
	ppm          = 1_000_000
)

// Types of items.
const (
	itemName    = 1
	itemVersion = 2
	itemAddress = 3
	itemLink    = 4
	itemService = 5
	itemIPv4    = 6
)

// Link is one end's statement about a link: to whom, and what it measures.
type Link struct {
	Peer     key.Public
	RTT      time.Duration // carried in µs, at most 71 minutes
	Loss     float64       // 0 to 1, carried in millionths
	Capacity uint64        // kbit/s that it was seen to be full at, 0 unknown; carried in 32 bits
	Jitter   time.Duration // of the round trip; carried in steps of 32 µs, at most 2 s
	Flaps    float64       // times that it came back lately, fading; carried in quarters
	Up       uint8         // UpSteps of how long it is up
	MTU      int           // largest datagram, 0 unknown
	Carrier  uint8         // 0 unknown, else CarrierUDP …
}

// Service is something a node offers to the mesh.
type Service struct {
	Name string // unique within the node
	Type string // vpn, socks, manager, …; may be empty
	Port uint16 // 0 if the service has none
	Meta string // meaning belongs to the type
}

// Item is an item of a type this version does not know. It is kept, so that a record passes through old nodes whole.
type Item struct {
	Type  uint8
	Value []byte
}

// Record is what a node says about itself. Layout, all numbers big endian, signed as kind "record":
//
//	version 1 │ key 32 │ boot 8 │ number 8 │ made 8 │ items {type u8, length u16, value} … │ signature 64
//
// Items stand in rising order of type; links in rising order of key, services of name, addresses in the node's order of
// preference. A link is {key 32, rtt_us u32, loss_ppm u32, capacity_kbit u32}; a service is {port u16, length u8, name,
// length u8, type, meta}; IPv4 is 4 bytes; measures are in measures.go; the others are text.
type Record struct {
	Key      key.Public
	Boot     uint64 // random, new at each start of the node
	Number   uint64 // newer records have higher numbers, across boots
	Made     int64  // Unix seconds by the node's own clock, 0 unknown; for people, nothing decides by it
	Name     string
	Version  string
	Addrs    []string
	Links    []Link
	Services []Service
	IPv4     netip.Addr // the zero Addr if the node has none
	Unknown  []Item
}

// Sign encodes r under p's key and signs it for network id. What is out of bounds is left out as Fit does; r itself is
// not changed, and r.Key is not read.
func Sign(r *Record, p *key.Private, id key.NetworkID) []byte {
	c, _ := r.Fit()
	c.Key = p.Public()
	b := c.appendBody(make([]byte, 0, 1024))
	sig := p.Sign(kind, id, b)
	return append(b, sig[:]...)
}

// Fit returns a copy of r in canonical order and within all bounds, and how many items had to be left out for it. The
// links with the longest round trips go first, then the last services.
func (r *Record) Fit() (fitted *Record, dropped int) {
	c := *r
	c.Addrs, c.Links = slices.Clone(r.Addrs), slices.Clone(r.Links)
	c.Services, c.Unknown = slices.Clone(r.Services), slices.Clone(r.Unknown)
	before := c.items()
	if !validText(c.Name, MaxName) {
		c.Name = ""
	}
	if !validText(c.Version, MaxVersion) {
		c.Version = ""
	}
	if !c.IPv4.Is4() {
		c.IPv4 = netip.Addr{}
	}
	c.fitAddrs()
	c.fitLinks()
	c.fitServices()
	c.Unknown = slices.DeleteFunc(c.Unknown, func(i Item) bool { return i.Type <= itemIPv4 || i.ours() || len(i.Value) > MaxRecord })
	sort.SliceStable(c.Unknown, func(i, j int) bool { return c.Unknown[i].Type < c.Unknown[j].Type })
	for c.size() > MaxRecord {
		switch {
		case len(c.Unknown) > 0:
			c.Unknown = c.Unknown[:len(c.Unknown)-1]
		case len(c.Links) > MaxLinks/2:
			c.dropSlowestLink()
		default:
			c.Services = c.Services[:len(c.Services)-1]
		}
	}
	return &c, before - c.items()
}

func (r *Record) items() int {
	n := len(r.Addrs) + len(r.Links) + len(r.Services) + len(r.Unknown)
	for _, present := range []bool{r.Name != "", r.Version != "", r.IPv4.IsValid(), r.measured()} {
		if present {
			n++
		}
	}
	return n
}

func (r *Record) size() int {
	n := headerLen + signatureLen + r.items()*itemHeader + len(r.Name) + len(r.Version) + len(r.Links)*linkLen + r.measuresLen()
	for _, a := range r.Addrs {
		n += len(a)
	}
	for _, s := range r.Services {
		n += serviceLen(s)
	}
	if r.IPv4.IsValid() {
		n += 4
	}
	for _, i := range r.Unknown {
		n += len(i.Value)
	}
	return n
}

func serviceLen(s Service) int { return 2 + 1 + len(s.Name) + 1 + len(s.Type) + len(s.Meta) }

func (r *Record) fitAddrs() {
	seen := make(map[string]bool, len(r.Addrs))
	r.Addrs = slices.DeleteFunc(r.Addrs, func(a string) bool {
		bad := seen[a] || !validAddr(a)
		seen[a] = true
		return bad
	})
	r.Addrs = r.Addrs[:min(len(r.Addrs), MaxAddrs)]
}

func (r *Record) fitLinks() {
	r.Links = slices.DeleteFunc(r.Links, func(l Link) bool {
		_, err := key.FromList(l.Peer[:])
		return err != nil
	})
	for i := range r.Links {
		l := &r.Links[i]
		l.RTT = min(max(l.RTT, 0), math.MaxUint32*time.Microsecond)
		l.Capacity = min(l.Capacity, math.MaxUint32)
		if !(l.Loss >= 0) { // NaN too
			l.Loss = 0
		}
		l.Loss = min(l.Loss, 1)
		l.fitMeasures()
	}
	sort.SliceStable(r.Links, func(i, j int) bool { return order(r.Links[i].Peer, r.Links[j].Peer) < 0 })
	r.Links = slices.CompactFunc(r.Links, func(a, b Link) bool { return a.Peer == b.Peer })
	for len(r.Links) > MaxLinks {
		r.dropSlowestLink()
	}
}

func (r *Record) dropSlowestLink() {
	worst := 0
	for i, l := range r.Links {
		if l.RTT > r.Links[worst].RTT {
			worst = i
		}
	}
	r.Links = slices.Delete(r.Links, worst, worst+1)
}

func (r *Record) fitServices() {
	r.Services = slices.DeleteFunc(r.Services, func(s Service) bool { return !validService(s) })
	sort.SliceStable(r.Services, func(i, j int) bool { return r.Services[i].Name < r.Services[j].Name })
	r.Services = slices.CompactFunc(r.Services, func(a, b Service) bool { return a.Name == b.Name })
	r.Services = r.Services[:min(len(r.Services), MaxServices)]
}

// appendBody appends everything but the signature. r must be as Fit leaves it.
func (r *Record) appendBody(b []byte) []byte {
	b = append(b, version)
	b = append(b, r.Key[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Boot)
	b = binary.BigEndian.AppendUint64(b, r.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Made))
	if r.Name != "" {
		b = append(appendItem(b, itemName, len(r.Name)), r.Name...)
	}
	if r.Version != "" {
		b = append(appendItem(b, itemVersion, len(r.Version)), r.Version...)
	}
	for _, a := range r.Addrs {
		b = append(appendItem(b, itemAddress, len(a)), a...)
	}
	for _, l := range r.Links {
		b = append(appendItem(b, itemLink, linkLen), l.Peer[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(l.RTT/time.Microsecond))
		b = binary.BigEndian.AppendUint32(b, lossPPM(l.Loss))
		b = binary.BigEndian.AppendUint32(b, uint32(l.Capacity))
	}
	for _, s := range r.Services {
		b = binary.BigEndian.AppendUint16(appendItem(b, itemService, serviceLen(s)), s.Port)
		b = append(append(b, byte(len(s.Name))), s.Name...)
		b = append(append(b, byte(len(s.Type))), s.Type...)
		b = append(b, s.Meta...)
	}
	if r.IPv4.IsValid() {
		a := r.IPv4.As4()
		b = append(appendItem(b, itemIPv4, 4), a[:]...)
	}
	b = r.appendMeasures(b)
	for _, i := range r.Unknown {
		b = append(appendItem(b, i.Type, len(i.Value)), i.Value...)
	}
	return b
}

func appendItem(b []byte, kind uint8, length int) []byte {
	return binary.BigEndian.AppendUint16(append(b, kind), uint16(length))
}

func order(a, b key.Public) int { return bytes.Compare(a[:], b[:]) }

func lossPPM(loss float64) uint32 { return uint32(math.Round(loss * ppm)) }

// ParseRecord decodes b and verifies its signature for network id. It accepts exactly the bytes that Sign makes, so two
// records that say the same are the same bytes. The result shares no memory with b.
func ParseRecord(b []byte, id key.NetworkID) (*Record, error) { return parse(b, id, false) }

func parse(b []byte, id key.NetworkID, known bool) (*Record, error) {
	r, err := parseUnverified(b, known)
	if err != nil {
		return nil, err
	}
	if !r.verify(b, id) {
		return nil, fmt.Errorf("%w: of %s", ErrSignature, r.Key.Short())
	}
	return r, nil
}

func (r *Record) verify(b []byte, id key.NetworkID) bool {
	body, sig := b[:len(b)-signatureLen], b[len(b)-signatureLen:]
	return r.Key.Verify(kind, id, body, sig)
}

// Peek returns whose record b claims to be and its number, without any check of the rest: enough to see that it is not
// news before its signature costs a millisecond.
func Peek(b []byte) (k key.Public, number uint64, err error) {
	if len(b) < headerLen+signatureLen || len(b) > MaxRecord || b[0] != version {
		return k, 0, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	copy(k[:], b[1:])
	return k, binary.BigEndian.Uint64(b[41:]), nil
}

// parseUnverified is ParseRecord up to the signature. known says that the key was checked in full before, which costs as
// much as a signature.
func parseUnverified(b []byte, known bool) (*Record, error) {
	k, number, err := Peek(b)
	if err != nil {
		return nil, err
	}
	check := key.FromBytes
	if known {
		check = key.FromList
	}
	if k, err = check(k[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	r := &Record{
		Key: k, Number: number,
		Boot: binary.BigEndian.Uint64(b[33:]), Made: int64(binary.BigEndian.Uint64(b[49:])),
	}
	body := b[:len(b)-signatureLen]
	for rest := body[headerLen:]; len(rest) > 0; {
		if len(rest) < itemHeader {
			return nil, fmt.Errorf("%w: item cut short", ErrFormat)
		}
		t, n := rest[0], int(binary.BigEndian.Uint16(rest[1:]))
		if rest = rest[itemHeader:]; n > len(rest) {
			return nil, fmt.Errorf("%w: item %d cut short", ErrFormat, t)
		}
		if err := r.parseItem(t, rest[:n]); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	// One rule instead of one per item: what Fit would drop or move, or what encodes otherwise, is not canonical.
	c, dropped := r.Fit()
	if dropped != 0 || !bytes.Equal(c.appendBody(make([]byte, 0, len(body))), body) {
		return nil, fmt.Errorf("%w: not canonical", ErrFormat)
	}
	return r, nil
}

func (r *Record) parseItem(t uint8, v []byte) error {
	bad := false
	switch t {
	case itemName:
		bad = r.Name != ""
		r.Name = string(v)
	case itemVersion:
		bad = r.Version != ""
		r.Version = string(v)
	case itemAddress:
		bad = len(r.Addrs) == MaxAddrs
		r.Addrs = append(r.Addrs, string(v))
	case itemLink:
		if bad = len(v) != linkLen || len(r.Links) == MaxLinks; !bad {
			r.Links = append(r.Links, parseLink(v))
		}
	case itemService:
		var s Service
		if s, bad = parseService(v); !bad {
			bad = len(r.Services) == MaxServices
			r.Services = append(r.Services, s)
		}
	case itemIPv4:
		if bad = len(v) != 4 || r.IPv4.IsValid(); !bad {
			r.IPv4 = netip.AddrFrom4([4]byte(v))
		}
	case itemMeasures:
		if (Item{t, v}).ours() {
			return r.parseMeasures(v)
		}
		fallthrough
	default:
		r.Unknown = append(r.Unknown, Item{Type: t, Value: bytes.Clone(v)})
	}
	if bad {
		return fmt.Errorf("%w: item %d", ErrFormat, t)
	}
	return nil
}

func parseLink(v []byte) Link {
	return Link{
		Peer:     key.Public(v[:32]),
		RTT:      time.Duration(binary.BigEndian.Uint32(v[32:])) * time.Microsecond,
		Loss:     float64(binary.BigEndian.Uint32(v[36:])) / ppm,
		Capacity: uint64(binary.BigEndian.Uint32(v[40:])),
	}
}

func parseService(v []byte) (s Service, bad bool) {
	if len(v) < 4 {
		return s, true
	}
	s.Port = binary.BigEndian.Uint16(v)
	v = v[2:]
	for _, text := range []*string{&s.Name, &s.Type} {
		if len(v) < 1 || int(v[0]) > len(v)-1 {
			return s, true
		}
		n := 1 + int(v[0])
		*text, v = string(v[1:n]), v[n:]
	}
	s.Meta = string(v)
	return s, false
}

// validText accepts short printable text: records reach terminals, which must not obey them.
func validText(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

func validAddr(s string) bool {
	return s != "" && len(s) <= MaxAddr && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

func validService(s Service) bool {
	return s.Name != "" && validText(s.Name, MaxName) && validText(s.Type, MaxType) && validText(s.Meta, MaxMeta)
}
