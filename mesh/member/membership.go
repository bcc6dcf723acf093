package member

import (
	"bytes"
	"fmt"
	"time"

	"skywire/mesh/key"
)

// Rights are what a proven key may do here.
type Rights uint8

// Rights, rising.
const (
	None   Rights = iota // revoked: no link, no path, nothing
	Guest                // exchange statements, join, renew; nothing else
	Member               // all that policy does not forbid
)

var rightsNames = [...]string{"none", "guest", "member"}

func (r Rights) String() string {
	if int(r) < len(rightsNames) {
		return rightsNames[r]
	}
	return "unknown"
}

// Membership is what the cluster says of a key.
type Membership struct {
	Rights      Rights
	Why         string       // for people: "revoked by …", "no certificate", …
	Certificate *Certificate // the newest; nil if there is none
	Expired     bool
}

// Member tells what a key may do at an instant. It judges the cluster only: that the neighbour is the key was proven by
// the handshake.
func (s *State) Member(at Instant, k key.Public) Membership {
	m := Membership{Certificate: s.certificate(k)}
	switch r := s.revocation(k); {
	case r != nil && r.Revoked:
		m.Why = fmt.Sprintf("revoked by %s on %s", r.Admin.Short(), day(r.Issued))
		return m
	case s.list == nil:
		m.Rights, m.Why = Guest, "the admin list of the cluster is not known yet"
	case m.Certificate == nil:
		m.Rights, m.Why = Guest, "it has no certificate of this cluster"
	case s.clock.over(at, m.Certificate.NotAfter):
		m.Rights, m.Expired = Guest, true
		m.Why = "its certificate ran out on " + day(m.Certificate.NotAfter)
	default:
		m.Rights, m.Why = Member, "certificate of "+m.Certificate.Admin.Short()
	}
	return m
}

func day(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.DateOnly) }

// Revoked tells whether a key is revoked.
func (s *State) Revoked(k key.Public) bool {
	r := s.revocation(k)
	return r != nil && r.Revoked
}

// revocation is the entry about k that counts, nil if there is none.
func (s *State) revocation(k key.Public) (best *Revocation) {
	for _, h := range s.barred[k] {
		if best == nil || h.revoke.rank() > best.rank() {
			best = h.revoke
		}
	}
	return best
}

// NextRevocation is the N with which a new entry about k counts.
func (s *State) NextRevocation(k key.Public) uint32 {
	if r := s.revocation(k); r != nil {
		return r.N + min(1, ^uint32(0)-r.N)
	}
	return 1
}

// certificate is the newest certificate of k. An older one that lasts longer does not come back when it runs out.
func (s *State) certificate(k key.Public) *Certificate {
	var best *held
	for _, h := range s.ofNode[k] {
		if best == nil || h.issued > best.issued || h.issued == best.issued && bytes.Compare(h.raw, best.raw) > 0 {
			best = h
		}
	}
	if best == nil {
		return nil
	}
	return best.cert
}

// RawCertificate is the newest certificate of k as signed, nil if there is none.
func (s *State) RawCertificate(k key.Public) []byte {
	c := s.certificate(k)
	if c == nil {
		return nil
	}
	return s.bySlot[slot{KindCertificate, c.Admin, k}].raw
}

// Admins is the admin list held, nil if there is none, and the list as signed.
func (s *State) Admins() (*AdminList, []byte) {
	if s.list == nil {
		return nil, nil
	}
	return s.list, s.bySlot[slot{kind: KindAdmins}].raw
}

// Powers are what the admin list grants a key: scopes come from here and from the box itself, never from a certificate.
func (s *State) Powers(k key.Public) Powers {
	a, _ := s.list.Find(k)
	return a.Powers
}

// RenewDue tells whether k should ask for a new certificate: half of its life is over, as far as one knows. Someone
// revoked asks in vain.
func (s *State) RenewDue(at Instant, k key.Public) bool {
	c := s.certificate(k)
	return c != nil && !s.Revoked(k) && halfOver(c, s.clock.now(at))
}

func halfOver(c *Certificate, now int64) bool { return now >= c.Issued+(c.NotAfter-c.Issued)/2 }

// Issuer tells whether k may issue and renew certificates: a member of the role manager. A guest may have a path to it.
func (s *State) Issuer(at Instant, k key.Public) bool {
	m := s.Member(at, k)
	return m.Rights == Member && m.Certificate.Roles&RoleManager != 0
}

// NextExpiry is the earliest end of a certificate that has not ended for certain, in unix seconds; 0 if there is none.
// Until then rights change by statements alone.
func (s *State) NextExpiry(at Instant) (first int64) {
	for k := range s.ofNode {
		end := s.certificate(k).NotAfter
		if !s.clock.over(at, end) && (first == 0 || end < first) {
			first = end
		}
	}
	return first
}

// Managers are the members that may issue and renew certificates, in order of their keys.
func (s *State) Managers(at Instant) (all []key.Public) {
	for _, k := range s.certified() {
		if s.Issuer(at, k) {
			all = append(all, k)
		}
	}
	return all
}

// Known are all keys with a certificate or a revocation, in order.
func (s *State) Known() []key.Public {
	all := s.certified()
	for k := range s.barred {
		if len(s.ofNode[k]) == 0 {
			all = append(all, k)
		}
	}
	sortKeys(all)
	return all
}

func (s *State) certified() []key.Public {
	all := make([]key.Public, 0, len(s.ofNode))
	for k := range s.ofNode {
		all = append(all, k)
	}
	sortKeys(all)
	return all
}
