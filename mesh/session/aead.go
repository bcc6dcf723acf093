package session

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"runtime"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"

	"skywire/mesh/wire"
)

// Cipher is a data cipher, by its bit in the handshake payload.
type Cipher uint8

// The ciphers. There is no null cipher.
const (
	ChaCha Cipher = wire.CipherChaCha
	AES    Cipher = wire.CipherAES
)

// String names the cipher.
func (c Cipher) String() string {
	switch c {
	case ChaCha:
		return "chacha20-poly1305"
	case AES:
		return "aes-256-gcm"
	}
	return "no cipher"
}

// HardwareAES reports whether this CPU has AES and carry-less multiplication. Go's AES without them is slower
// than its ChaCha and leaks by timing, so AES is offered only with them.
func HardwareAES() bool {
	switch runtime.GOARCH {
	case "amd64", "386":
		return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41
	case "arm64":
		return cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	}
	return false
}

// AEAD is one direction's data cipher under one key. It may be used by several goroutines at once.
type AEAD struct {
	aead   cipher.AEAD
	cipher Cipher
}

// NewAEAD makes a data cipher from a handshake's transport key, by one more hash with the cipher's number.
func NewAEAD(c Cipher, key [32]byte) (*AEAD, error) {
	k := derive(key, "aead", byte(c), 32)
	defer clear(k)
	switch c {
	case ChaCha:
		a, err := chacha20poly1305.New(k)
		return &AEAD{a, c}, err
	case AES:
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, err
		}
		a, err := cipher.NewGCM(block)
		return &AEAD{a, c}, err
	}
	return nil, ErrCipher
}

// Cipher is the cipher in use.
func (a *AEAD) Cipher() Cipher { return a.cipher }

// Seal appends the sealed plaintext to dst and does not allocate if dst has room for it and 16 bytes more. The
// plaintext may stand exactly where the result goes. Keep nonce in the caller's scratch: a local array escapes.
func (a *AEAD) Seal(dst []byte, nonce *[12]byte, plaintext, aad []byte) []byte {
	return a.aead.Seal(dst, nonce[:], plaintext, aad)
}

// Open appends the opened text to dst; in place is dst = sealed[:0]. ErrOpen leaves what stood there undefined.
func (a *AEAD) Open(dst []byte, nonce *[12]byte, sealed, aad []byte) ([]byte, error) {
	out, err := a.aead.Open(dst, nonce[:], sealed, aad)
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// Nonces of one key never meet: lanes are 0–7, proofs use lane 255 with counter 0; LINK frames have keys of their
// own, and path 0xFFFF.
const (
	LinkPath  = 0xffff
	ProofLane = 0xff
)

// PathNonce fills n for one frame of a lane: path 2, lane 1, zero 1, counter 8.
func PathNonce(n *[12]byte, path uint16, lane uint8, counter uint64) {
	binary.BigEndian.PutUint16(n[:], path)
	n[2], n[3] = lane, 0
	binary.BigEndian.PutUint64(n[4:], counter)
}

// LinkNonce fills n for one LINK frame: 0xFFFF, zero 2, counter 8.
func LinkNonce(n *[12]byte, counter uint64) { PathNonce(n, LinkPath, 0, counter) }
