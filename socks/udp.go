package socks

import (
	"encoding/binary"
	"net/netip"
)

// MaxDatagram is the largest payload of a UDP packet.
const MaxDatagram = 65507

// MaxDatagramHeader is the largest header that stands before a payload: reserved bytes, fragment, the longest name, port.
const MaxDatagramHeader = 3 + 1 + 1 + maxHost + 2

// Types of address (RFC 1928, 5).
const (
	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4
)

// Datagram is a UDP packet with the target it goes to, or the address it came from (RFC 1928, 7, behind the reserved bytes
// and the fragment number):
//
//	+------+- - - - - - - - - -+------+- - - - -+
//	| type | address or name   | port | payload |     type 1: 4 bytes, 3: length u8 and name, 4: 16 bytes
//	+------+- - - - - - - - - -+------+- - - - -+
//
// In this form packets cross the mesh, so a client copies what programs send as it is.
type Datagram struct {
	Addr    netip.Addr // invalid where Name is set
	Name    string
	Port    uint16
	Payload []byte
}

// Host returns the target's host in text form.
func (d Datagram) Host() string {
	if d.Name != "" {
		return d.Name
	}
	return d.Addr.String()
}

// Append encodes d. A name of more than 255 bytes is cut, so check it with CheckTarget before.
func (d Datagram) Append(dst []byte) []byte {
	switch a := d.Addr.Unmap(); {
	case d.Name != "":
		n := min(len(d.Name), maxHost)
		dst = append(append(dst, typeName, byte(n)), d.Name[:n]...)
	case a.Is4():
		b := a.As4()
		dst = append(append(dst, typeIPv4), b[:]...)
	default:
		b := a.As16()
		dst = append(append(dst, typeIPv6), b[:]...)
	}
	return append(binary.BigEndian.AppendUint16(dst, d.Port), d.Payload...)
}

// ParseDatagram decodes a packet. The payload aliases b. Only a packet with a name allocates.
func ParseDatagram(b []byte) (Datagram, error) {
	var d Datagram
	if len(b) < 1 {
		return d, ErrAddress
	}
	kind, rest := b[0], b[1:]
	n := 0
	switch {
	case kind == typeIPv4:
		n = 4
	case kind == typeIPv6:
		n = 16
	case kind == typeName && len(rest) > 0:
		n, rest = int(rest[0]), rest[1:]
	}
	if n == 0 || len(rest) < n+2 {
		return d, ErrAddress
	}
	d.Port, d.Payload = binary.BigEndian.Uint16(rest[n:]), rest[n+2:]
	switch {
	case d.Port == 0:
		return d, ErrAddress
	case kind == typeIPv4:
		d.Addr = netip.AddrFrom4([4]byte(rest))
	case kind == typeIPv6:
		d.Addr = netip.AddrFrom16([16]byte(rest)).Unmap()
	default:
		d.Name = string(rest[:n])
		return d, CheckTarget(d.Name, d.Port)
	}
	return d, nil
}

// ParseUDP decodes what a program sends to its association: two reserved bytes, a fragment number, and a Datagram. A
// fragment is ErrFragment: putting them together is optional, and whoever needs it sends smaller packets.
func ParseUDP(b []byte) (Datagram, error) {
	if len(b) < 3 {
		return Datagram{}, ErrAddress
	}
	if b[2] != 0 {
		return Datagram{}, ErrFragment
	}
	return ParseDatagram(b[3:])
}
