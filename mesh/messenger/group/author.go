package group

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// Author makes changes in the name of an account.
type Author struct {
	Account    key.Public
	Key        *key.Private // of the device
	Statements [][]byte     // that it speaks for the account; nil if it is the account
}

// New founds a group: the author's account first, members after it.
func New(a Author, now int64, name string, place envelope.Place, members []Seat) (*Roster, error) {
	o := &Op{Kind: Found, Name: name, Generation: 1, Seats: append([]Seat{{Account: a.Account, Admin: true, Place: place}}, members...)}
	if _, err := rand.Read(o.Nonce[:]); err != nil {
		return nil, fmt.Errorf("new group: %w", err)
	}
	o.Group = groupID(a.Account, o.Nonce)
	r := &Roster{}
	_, err := r.Sign(a, now, o)
	return r, err
}

// Sign fills in what every change has, signs it, puts it into the log and returns it as signed.
func (r *Roster) Sign(a Author, now int64, o *Op) ([]byte, error) {
	o.Account, o.Device, o.Time = a.Account, a.Key.Public(), now
	if o.Kind != Found {
		o.Group = r.id
	}
	if o.Parents == nil && o.Generation != 1 {
		o.Parents = r.Heads()
	}
	if len(o.Parents) > MaxParents {
		o.Parents = o.Parents[:MaxParents]
	}
	if a.Account != o.Device && (o.Kind == Found || !r.proven(a.Account, o.Device)) {
		o.Statements = proof(a.Statements)
	}
	raw, err := o.Sign(a.Key)
	if err != nil {
		return nil, err
	}
	_, _, err = r.Put(raw)
	return raw, err
}

// proof is what proves a device, of all statements: the admin list, the certificate, and the last revocations that there is room for.
func proof(all [][]byte) [][]byte {
	var by [member.KindCertificate + 1][][]byte
	for _, raw := range all {
		if len(raw) > 0 && member.Kind(raw[0]) <= member.KindCertificate {
			by[raw[0]] = append(by[raw[0]], raw)
		}
	}
	revoked := by[member.KindRevocation]
	revoked = revoked[max(0, len(revoked)-(maxStatements-2)):]
	return slices.Concat(by[member.KindAdmins], revoked, by[member.KindCertificate])
}

// proven tells whether a change of the device that proves it is among what the next change follows.
func (r *Roster) proven(account, device key.Public) bool {
	for _, n := range r.nodes {
		if n.Account == account && n.Device == device && n.proven && len(r.heads) <= MaxParents {
			return true
		}
	}
	return false
}

// Renew begins the next generation with the roster as it is: the log is one change long after it. The founder alone can.
func (r *Roster) Renew(a Author, now int64) ([]byte, error) {
	if a.Account != r.Founder() {
		return nil, ErrForbidden
	}
	st := r.current()
	o := &Op{Kind: Found, Group: r.id, Nonce: r.nodes[0].Nonce, Generation: r.generation + 1, Name: st.name, Parents: r.Heads()}
	for k, s := range st.members {
		if k != a.Account {
			o.Seats = append(o.Seats, Seat{Account: k, Admin: len(s.grants) > 0, Place: s.place})
		}
	}
	sort.Slice(o.Seats, func(i, j int) bool {
		x, y := o.Seats[i], o.Seats[j]
		switch {
		case x.Admin != y.Admin:
			return x.Admin
		case x.Admin:
			return st.members[x.Account].rank.less(st.members[y.Account].rank)
		}
		return string(x.Account[:]) < string(y.Account[:])
	})
	me := Seat{Account: a.Account, Admin: true}
	if s := st.members[a.Account]; s != nil {
		me.Place = s.place
	}
	o.Seats = append([]Seat{me}, o.Seats...)
	return r.Sign(a, now, o)
}
