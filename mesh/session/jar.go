package session

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// CookieLife is how long a cookie is used, and how often the secret behind it changes.
const CookieLife = 120 * time.Second

// macKeys are the keys that follow from a responder's public key: who does not know it gets no answer.
type macKeys struct{ mac1, cookie [32]byte }

func newMACKeys(responder key.Public) macKeys {
	x := responder.X25519()
	return macKeys{
		mac1:   blake2s.Sum256(append([]byte("skywire mac1"), x[:]...)),
		cookie: blake2s.Sum256(append([]byte("skywire cookie"), x[:]...)),
	}
}

func (k *macKeys) sum(b []byte) [wire.MACLen]byte { return [wire.MACLen]byte(mac(k.mac1[:], 16, b)) }

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

func cookieFor(secret [32]byte, from netip.AddrPort) [wire.MACLen]byte {
	a := from.Addr().As16()
	return [wire.MACLen]byte(mac(secret[:], 16, a[:], binary.BigEndian.AppendUint16(nil, from.Port())))
}

// Jar is the initiator's side of the frames around a handshake with one responder: it puts the macs on INIT,
// checks RESP, and keeps the cookie that the responder asks for under load.
type Jar struct {
	keys    macKeys
	label   uint32
	mac1    [wire.MACLen]byte
	sent    bool
	cookie  [wire.MACLen]byte
	learned time.Duration
	has     bool
}

// NewJar makes the jar for one responder.
func NewJar(responder key.Public) *Jar { return &Jar{keys: newMACKeys(responder)} }

// Init wraps a first message as a frame of 200 bytes. Label is our link label. It may be called again with the
// same message, after Cookie for one with the cookie's mac.
func (j *Jar) Init(now time.Duration, label uint32, msg1 []byte) []byte {
	f := wire.Init{Label: label}
	copy(f.Noise[:], msg1)
	b := f.Append(make([]byte, 0, wire.InitLen))
	f.MAC1 = j.keys.sum(b[:wire.InitMAC1])
	copy(b[wire.InitMAC1:], f.MAC1[:])
	if j.has && now-j.learned < CookieLife {
		copy(b[wire.InitMAC2:], mac(j.cookie[:], 16, b[:wire.InitMAC2]))
	}
	j.label, j.mac1, j.sent = label, f.MAC1, true
	return b
}

// Resp reads a RESP to the last Init: its label must be ours and mac1 right.
func (j *Jar) Resp(b []byte) (wire.Resp, error) {
	f, err := wire.ParseResp(b)
	if err != nil {
		return wire.Resp{}, err
	}
	if !j.sent || f.Yours != j.label {
		return wire.Resp{}, ErrLabel
	}
	if want := j.keys.sum(b[:wire.RespMAC1]); !equal(want[:], f.MAC1[:]) {
		return wire.Resp{}, ErrMAC
	}
	return f, nil
}

// Cookie learns from a COOKIE to the last Init; the caller then sends Init again.
func (j *Jar) Cookie(now time.Duration, b []byte) error {
	f, err := wire.ParseCookie(b)
	if err != nil {
		return err
	}
	if !j.sent || f.Yours != j.label {
		return ErrLabel
	}
	a, err := chacha20poly1305.NewX(j.keys.cookie[:])
	if err != nil {
		return fmt.Errorf("cookie: %w", err)
	}
	c, err := a.Open(nil, f.Nonce[:], f.Sealed[:], j.mac1[:])
	if err != nil {
		return ErrOpen
	}
	copy(j.cookie[:], c)
	j.learned, j.has = now, true
	return nil
}
