package portmap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Port Control Protocol, RFC 6887: the MAP opcode for UDP, without options. There is no kept Go library for it.
//
//	 0        1         2          4                 8                 24
//	| ver 2  | R|op 1  | reserved | lifetime         | client address  | …            request
//	| ver 2  | R|op 1  | 0, result| lifetime         | epoch, reserved | …            answer
//	  24          36         37         40              42              44
//	| nonce 12   | protocol | reserved | internal port | external port | external address 16 |
const (
	pcpVersion = 2
	pcpMap     = 1
	pcpAnswer  = 0x80
	pcpUDP     = 17
	pcpLen     = 60
	pcpMost    = 1100 // RFC 6887, 7: no message is longer
	serverPort = 5351
)

// MapRequest asks for a mapping, or with lifetime 0 to end one.
type MapRequest struct {
	Client   netip.Addr // ours, as the gateway sees it
	Nonce    [12]byte
	Internal uint16
	External netip.AddrPort // wished for; the zero value: any
	Lifetime time.Duration
}

// Append encodes r.
func (r MapRequest) Append(dst []byte) []byte {
	dst = append(dst, pcpVersion, pcpMap, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Lifetime/time.Second))
	client := r.Client.As16()
	dst = append(dst, client[:]...)
	dst = append(dst, r.Nonce[:]...)
	dst = append(dst, pcpUDP, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, r.Internal)
	dst = binary.BigEndian.AppendUint16(dst, r.External.Port())
	wish := r.External.Addr()
	if !wish.IsValid() { // RFC 6887, 11.1: all zeros of the client's family
		wish = unspecified(r.Client)
	}
	a := wish.As16()
	return append(dst, a[:]...)
}

// MapAnswer is what a gateway says to a MapRequest.
type MapAnswer struct {
	Result   uint8 // 0: done
	Lifetime time.Duration
	Epoch    uint32 // seconds since the gateway lost its mappings
	Nonce    [12]byte
	Internal uint16
	External netip.AddrPort
}

// ParseMapAnswer decodes an answer. ErrVersion tells that the gateway speaks another version.
func ParseMapAnswer(b []byte) (MapAnswer, error) {
	if len(b) >= 2 && b[0] != pcpVersion && b[1]&pcpAnswer != 0 {
		return MapAnswer{}, fmt.Errorf("%w: it answers with version %d", ErrVersion, b[0])
	}
	if len(b) < 24 || len(b) > pcpMost || len(b)%4 != 0 || b[0] != pcpVersion || b[1] != pcpAnswer|pcpMap {
		return MapAnswer{}, fmt.Errorf("%w of %d bytes", ErrMalformed, len(b))
	}
	if len(b) < pcpLen { // RFC 6887, 8.3: an error may come without the opcode's part; nothing ties it to our question
		return MapAnswer{}, fmt.Errorf("%w without its mapping", ErrMalformed)
	}
	if b[36] != pcpUDP {
		return MapAnswer{}, fmt.Errorf("%w for protocol %d", ErrMalformed, b[36])
	}
	return MapAnswer{
		Result:   b[3],
		Lifetime: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
		Epoch:    binary.BigEndian.Uint32(b[8:]),
		Nonce:    [12]byte(b[24:]),
		Internal: binary.BigEndian.Uint16(b[40:]),
		External: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:])).Unmap(), binary.BigEndian.Uint16(b[42:])),
	}, nil
}

// resultName is why a gateway refuses, RFC 6887, 7.4.
func resultName(code uint8) string {
	names := [...]string{
		"success", "unsupported version", "not authorized", "malformed request", "unsupported opcode", "unsupported option",
		"malformed option", "network failure", "no resources", "unsupported protocol", "quota exceeded", "can't provide external",
		"address mismatch", "excessive remote peers",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return fmt.Sprint("result ", code)
}

// epoch follows a gateway's clock: it tells when the gateway lost what it had mapped.
type epoch struct {
	known bool
	last  uint32
	at    time.Duration
}

// lost reports whether the gateway began anew since the last answer, and remembers this one: RFC 6887, 8.5.
func (e *epoch) lost(now time.Duration, value uint32) bool {
	was := *e
	*e = epoch{true, value, now}
	if !was.known {
		return false
	}
	ours, theirs := int64((now-was.at)/time.Second), int64(value)-int64(was.last)
	return theirs < -1 || ours+2 < theirs-theirs/16 || theirs+2 < ours-ours/16
}
