package member

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"skywire/mesh/key"
)

// Times of certificates.
const (
	// DefaultLife is how long a certificate lasts unless its issuer was told otherwise. It is thrice the time for which a
	// signed time confirms a clock, so that running nodes outlive the death of their issuer (SPEC.md, "Time").
	DefaultLife = 90 * 24 * time.Hour
	// MinLife is the shortest that makes sense: a node asks for the next one at half of it.
	MinLife = time.Minute
)

// Certificate says that a node belongs to the cluster, under which name, and with which rights. The node itself is its
// key; a certificate of nobody's is worth nothing to who can't prove the key.
type Certificate struct {
	Cluster  key.NetworkID
	Node     key.Public
	Admin    key.Public // who signed it
	Roles    Roles
	Serial   uint64 // given when the node joined, and kept when it renews: the older one keeps a name
	Issued   int64  // unix seconds; of two for one node the later one counts
	NotAfter int64  // unix seconds
	IPv4     netip.Addr
	Name     string
	Tags     []string // rising
}

// Sign encodes the certificate, with Cluster and Admin of these, and signs it with the admin's key:
//
//	kind 1 │ version 1 │ cluster 8 │ node 32 │ admin 32 │ roles 2 │ serial 8 │ issued 8 │ not_after 8 │ ipv4 4 │
//	name {length 1, text} │ tags 1, each {length 1, text} │ signature 64
func (c *Certificate) Sign(network key.NetworkID, admin *key.Private) ([]byte, error) {
	who := admin.Public()
	b := []byte{byte(KindCertificate), statementVersion}
	b = append(b, network[:]...)
	b = append(b, c.Node[:]...)
	b = append(b, who[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(c.Roles))
	b = binary.BigEndian.AppendUint64(b, c.Serial)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Issued))
	b = binary.BigEndian.AppendUint64(b, uint64(c.NotAfter))
	b = appendIPv4(b, c.IPv4)
	b = appendText(b, c.Name)
	raw := seal(appendTags(b, c.Tags), network, admin)
	if _, err := ParseCertificate(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseCertificate decodes a certificate; it does not check the signature.
func ParseCertificate(raw []byte) (*Certificate, error) {
	c, err := open(raw, KindCertificate)
	if err != nil {
		return nil, err
	}
	v := &Certificate{
		Cluster: key.NetworkID(c.Take(8)), Node: c.key(), Admin: c.key(), Roles: Roles(c.U16()), Serial: c.U64(),
		Issued: c.Unix(), NotAfter: c.Unix(), IPv4: c.ipv4(), Name: c.text(MaxName), Tags: c.tags(),
	}
	if v.Roles&^AllRoles != 0 || v.NotAfter <= v.Issued || v.Name != "" && !ValidName(v.Name) {
		c.Bad = true
	}
	if err := c.end("certificate"); err != nil {
		return nil, err
	}
	return v, nil
}

// Life is from issue to end.
func (c *Certificate) Life() time.Duration {
	return time.Duration(min(c.NotAfter-c.Issued, int64(1<<62/time.Second))) * time.Second
}

// May tells whether an admin of these powers may sign a certificate.
func (a Admin) May(c *Certificate) bool {
	if a.Powers&MayIssue == 0 || c.Roles&^a.Roles != 0 || c.Life() > a.Life || c.IPv4.IsValid() && !a.IPv4.Contains(c.IPv4) {
		return false
	}
	for _, t := range c.Tags {
		if !a.AnyTag && !contains(a.Tags, t) {
			return false
		}
	}
	return true
}

func contains(all []string, s string) bool {
	for _, x := range all {
		if x == s {
			return true
		}
	}
	return false
}
