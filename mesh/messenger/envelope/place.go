package envelope

import (
	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Place is where a device is met: a network, and whom to link to at first.
type Place struct {
	Cluster  key.Public       // the zero value: the open network
	Contacts []member.Contact // at most member.MaxContacts
}

// Network is the id of the place's network.
func (p Place) Network() key.NetworkID {
	if p.Cluster == (key.Public{}) {
		return key.Open()
	}
	return key.Cluster(p.Cluster)
}

// append encodes a place; own stands for the cluster key where that is the account's:
//
//	network 1 (0 open, 1 the account's cluster, 2 another: key 32 follows) │ contacts 1 │ each {key 32, address length 1, text}
func (p Place) append(dst []byte, own key.Public) []byte {
	switch p.Cluster {
	case key.Public{}:
		dst = append(dst, 0)
	case own:
		dst = append(dst, 1)
	default:
		dst = append(append(dst, 2), p.Cluster[:]...)
	}
	dst = append(dst, byte(len(p.Contacts)))
	for _, c := range p.Contacts {
		dst = appendText(append(dst, c.Key[:]...), c.Addr)
	}
	return dst
}

func (c *cursor) place(own key.Public) (p Place) {
	switch c.U8() {
	case 0:
	case 1:
		p.Cluster = own
	case 2:
		p.Cluster = c.identity()
		c.Bad = c.Bad || p.Cluster == own
	default:
		c.Bad = true
	}
	n := int(c.U8())
	c.Bad = c.Bad || n > member.MaxContacts
	for range n {
		if c.Bad {
			return Place{}
		}
		at := member.Contact{Key: c.identity(), Addr: c.text(member.MaxContactAddr)}
		c.Bad = c.Bad || !printable(at.Addr)
		p.Contacts = append(p.Contacts, at)
	}
	return p
}

// printable tells whether s can stand in an address: visible ASCII, not empty.
func printable(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 127 {
			return false
		}
	}
	return s != ""
}

// Append encodes a place for others who keep one; own stands for the cluster key where that is the account's.
func (p Place) Append(dst []byte, own key.Public) []byte { return p.append(dst, own) }

// ParsePlace decodes a place.
func ParsePlace(b []byte, own key.Public) (Place, error) {
	c := fields(b)
	p := c.place(own)
	return p, c.end("place")
}
