package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// putAddr lays a socket address out in raw and returns its size; ok is false where the socket can't send there.
func (s *Socket) putAddr(raw *unix.RawSockaddrInet6, to netip.AddrPort) (size uint32, ok bool) {
	a := to.Addr()
	if !s.v6 {
		a = a.Unmap()
		if !a.Is4() {
			return 0, false
		}
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		r.Family = unix.AF_INET
		putPort(&r.Port, to.Port())
		r.Addr = a.As4()
		return unix.SizeofSockaddrInet4, true
	}
	if !a.IsValid() {
		return 0, false
	}
	raw.Family = unix.AF_INET6
	putPort(&raw.Port, to.Port())
	raw.Addr = a.As16() // IPv4 comes out mapped
	if a.Is6() && a.Zone() != "" {
		raw.Scope_id = zoneID(a.Zone())
	}
	return unix.SizeofSockaddrInet6, true
}

// parseAddr is the inverse; mapped IPv4 comes out as IPv4.
func parseAddr(raw *unix.RawSockaddrInet6) netip.AddrPort {
	switch raw.Family {
	case unix.AF_INET:
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom4(r.Addr), port(&r.Port))
	case unix.AF_INET6:
		a := netip.AddrFrom16(raw.Addr).Unmap()
		if raw.Scope_id != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(raw.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, port(&raw.Port))
	}
	return netip.AddrPort{}
}

// Ports lie in network order in a field that Go reads in the machine's.
func putPort(field *uint16, p uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], p)
}

func port(field *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(field))[:]) }

// Zone is the zone of link-local addresses on an interface, as Receive tells it.
func Zone(index int, _ string) string { return strconv.Itoa(index) }

// zoneID turns the zone of a link-local address into an interface index; 0: unknown.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

func v4(a netip.Addr) [4]byte {
	if a = a.Unmap(); a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
