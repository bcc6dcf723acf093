package wire

import (
	"encoding/binary"

	"skywire/mesh/key"
)

// Sizes of the frames before a key stands. No answer is longer than what it answers.
const (
	InitLen   = 200
	RespLen   = 156
	CookieLen = 64
	WhoLen    = 200
	IsMeLen   = 56
	HintLen   = 24

	Noise1Len  = 160 // e 32, sealed s 48, sealed payload 80
	Noise2Len  = 112 // e 32, sealed payload 80
	PayloadLen = 64
	MACLen     = 16
)

// Where the macs start; each covers all bytes before it.
const (
	InitMAC1 = 168
	InitMAC2 = 184
	RespMAC1 = 124
	RespMAC2 = 140
)

// Ciphers that a payload offers or, in message 2, chooses.
const (
	CipherChaCha = 1 << 0 // ChaCha20-Poly1305, always offered
	CipherAES    = 1 << 1 // AES-256-GCM
)

// Features that a payload states, beside those of its version.
const (
	FeatureCopies = 1 << 0 // of sessions: takes KindCopy
)

// Payload is what each end says of itself inside a handshake, sealed.
//
//	lowest 1 | highest 1 | ciphers 2 | key 1 | ports 1 | mtu 2 | network 8 | members 8 | boot 8 | psk 8 | time 8 | features 4 | zero 12
type Payload struct {
	MinVersion, MaxVersion uint8
	Ciphers                uint16
	Key                    uint8  // what the peer shall put in the key byte of frames to me; never 0
	Ports                  uint8  // my receiving ports (link) or lanes (session)
	MTU                    uint16 // largest datagram that I take
	Network                key.NetworkID
	Members                [8]byte // digest of the membership lists that I hold
	Boot                   uint64  // random, new at each start
	PSK                    [8]byte // which pre-shared key I hold; 0 none
	Time                   int64   // unix seconds; 0 unknown
	Features               uint32  // Feature…, unknown bits are ignored
}

// Append adds the payload's 64 bytes.
func (p Payload) Append(dst []byte) []byte {
	dst = append(dst, p.MinVersion, p.MaxVersion)
	dst = binary.BigEndian.AppendUint16(dst, p.Ciphers)
	dst = append(dst, p.Key, p.Ports)
	dst = binary.BigEndian.AppendUint16(dst, p.MTU)
	dst = append(dst, p.Network[:]...)
	dst = append(dst, p.Members[:]...)
	dst = binary.BigEndian.AppendUint64(dst, p.Boot)
	dst = append(dst, p.PSK[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Time))
	dst = binary.BigEndian.AppendUint32(dst, p.Features)
	return appendZero(dst, 12)
}

// ParsePayload reads a payload. The zero bytes are room for later versions and are ignored.
func ParsePayload(b []byte) (Payload, error) {
	c := fields(b)
	p := Payload{MinVersion: c.U8(), MaxVersion: c.U8(), Ciphers: c.U16(), Key: c.U8(), Ports: c.U8(), MTU: c.U16()}
	c.fill(p.Network[:])
	c.fill(p.Members[:])
	p.Boot = c.U64()
	c.fill(p.PSK[:])
	p.Time = int64(c.U64())
	p.Features = c.U32()
	c.Take(12)
	return p, c.end("payload")
}

// Init is the first frame of a link.
//
//	type 1 | zero 3 | my link label 4 | e 32, sealed s 48, sealed payload 80 | mac1 16 | mac2 16
type Init struct {
	Label      uint32
	Noise      [Noise1Len]byte
	MAC1, MAC2 [MACLen]byte
}

// Append adds the frame.
func (f Init) Append(dst []byte) []byte {
	dst = append(dst, TypeInit, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, f.Label)
	dst = append(dst, f.Noise[:]...)
	dst = append(dst, f.MAC1[:]...)
	return append(dst, f.MAC2[:]...)
}

// ParseInit reads an INIT.
func ParseInit(b []byte) (Init, error) {
	c, err := open(b, TypeInit, InitLen, 3, "init")
	f := Init{Label: c.U32()}
	c.fill(f.Noise[:])
	c.fill(f.MAC1[:])
	c.fill(f.MAC2[:])
	return f, err
}

// Resp answers an Init.
//
//	type 1 | zero 3 | my link label 4 | your label 4 | e 32, sealed payload 80 | mac1 16 | mac2 16
type Resp struct {
	Label, Yours uint32
	Noise        [Noise2Len]byte
	MAC1, MAC2   [MACLen]byte
}

// Append adds the frame.
func (f Resp) Append(dst []byte) []byte {
	dst = append(dst, TypeResp, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, f.Label)
	dst = binary.BigEndian.AppendUint32(dst, f.Yours)
	dst = append(dst, f.Noise[:]...)
	dst = append(dst, f.MAC1[:]...)
	return append(dst, f.MAC2[:]...)
}

// ParseResp reads a RESP.
func ParseResp(b []byte) (Resp, error) {
	c, err := open(b, TypeResp, RespLen, 3, "resp")
	f := Resp{Label: c.U32(), Yours: c.U32()}
	c.fill(f.Noise[:])
	c.fill(f.MAC1[:])
	c.fill(f.MAC2[:])
	return f, err
}

// Cookie answers an Init under load: repeat it with mac2 under the sealed cookie.
//
//	type 1 | zero 3 | your label 4 | nonce 24 | sealed cookie 16+16
type Cookie struct {
	Yours  uint32
	Nonce  [24]byte
	Sealed [32]byte
}

// Append adds the frame.
func (f Cookie) Append(dst []byte) []byte {
	dst = append(dst, TypeCookie, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, f.Yours)
	dst = append(dst, f.Nonce[:]...)
	return append(dst, f.Sealed[:]...)
}

// ParseCookie reads a COOKIE.
func ParseCookie(b []byte) (Cookie, error) {
	c, err := open(b, TypeCookie, CookieLen, 3, "cookie")
	f := Cookie{Yours: c.U32()}
	c.fill(f.Nonce[:])
	c.fill(f.Sealed[:])
	return f, err
}

// Who asks an address for its key; as long as an Init, so that nothing is amplified.
//
//	type 1 | zero 3 | random 8 | zero 188
type Who struct{ Random [8]byte }

// Append adds the frame.
func (f Who) Append(dst []byte) []byte {
	dst = append(dst, TypeWho, 0, 0, 0)
	dst = append(dst, f.Random[:]...)
	return appendZero(dst, WhoLen-12)
}

// ParseWho reads a WHO.
func ParseWho(b []byte) (Who, error) {
	c, err := open(b, TypeWho, WhoLen, 3, "who")
	var f Who
	c.fill(f.Random[:])
	c.Zero(WhoLen - 12)
	if err == nil && c.Bad {
		err = wrong("who", ErrValue)
	}
	return f, err
}

// IsMe answers a Who.
//
//	type 1 | zero 3 | random 8 | key 32 | network id 8 | zero 4
type IsMe struct {
	Random  [8]byte
	Key     key.Public
	Network key.NetworkID
}

// Append adds the frame.
func (f IsMe) Append(dst []byte) []byte {
	dst = append(dst, TypeIsMe, 0, 0, 0)
	dst = append(dst, f.Random[:]...)
	dst = append(dst, f.Key[:]...)
	dst = append(dst, f.Network[:]...)
	return appendZero(dst, 4)
}

// ParseIsMe reads an ISME and checks its key in full. It proves nothing: the handshake after it does.
func ParseIsMe(b []byte) (IsMe, error) {
	c, err := open(b, TypeIsMe, IsMeLen, 3, "isme")
	if err != nil {
		return IsMe{}, err
	}
	var f IsMe
	c.fill(f.Random[:])
	if f.Key, err = key.FromBytes(c.Take(key.Size)); err != nil {
		return IsMe{}, wrong("isme", err)
	}
	c.fill(f.Network[:])
	c.Zero(4)
	if c.Bad {
		return IsMe{}, wrong("isme", ErrValue)
	}
	return f, nil
}

// Hint says that a labelled frame could not be placed, and echoes its first 16 bytes so that only who sent it
// knows them.
//
//	type 1 | zero 7 | first 16 bytes of the frame
type Hint struct{ Echo [TaggedLen]byte }

// Append adds the frame.
func (f Hint) Append(dst []byte) []byte {
	dst = append(dst, TypeHint, 0, 0, 0, 0, 0, 0, 0)
	return append(dst, f.Echo[:]...)
}

// ParseHint reads a HINT.
func ParseHint(b []byte) (Hint, error) {
	c, err := open(b, TypeHint, HintLen, 7, "hint")
	var f Hint
	c.fill(f.Echo[:])
	return f, err
}

// open checks type, length and the zero bytes behind the type.
func open(b []byte, typ uint8, length, zeros int, what string) (cursor, error) {
	if len(b) != length {
		return cursor{}, wrong(what, ErrLength)
	}
	c := fields(b)
	if c.U8() != typ {
		return cursor{}, wrong(what, ErrType)
	}
	c.Zero(zeros)
	if c.Bad {
		return c, wrong(what, ErrValue)
	}
	return c, nil
}
