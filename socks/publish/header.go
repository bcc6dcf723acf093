package publish

import (
	"encoding/binary"
	"net/netip"

	"skywire/mesh/key"
)

// netAddr is shorter.
type netAddr = netip.Addr

// proxyKeyType is the type of the field that carries the peer's key, from the range for applications of their own.
const proxyKeyType = 0xe0

// appendProxyHeader appends a header of the PROXY protocol, version 2, which tells the program behind a service who comes:
//
//	signature 12 | 0x21 PROXY | 0x21 TCP over IPv6 | length u16 | source 16 | destination 16 | ports u16 u16 | 0xe0 | length u16 | key
//
// Addresses are mesh addresses, the source's port is 0: what carries the stream has none. The key is in text form.
func appendProxyHeader(dst []byte, from, to netip.Addr, port uint16, k key.Public) []byte {
	text := k.String()
	a, b := from.As16(), to.As16()
	dst = append(dst, "\r\n\r\n\x00\r\nQUIT\n\x21\x21"...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(16+16+4+3+len(text)))
	dst = append(append(dst, a[:]...), b[:]...)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, port)
	dst = binary.BigEndian.AppendUint16(append(dst, proxyKeyType), uint16(len(text)))
	return append(dst, text...)
}
