package wss

import (
	"crypto/rand"
	"fmt"
)

// The certificate of a server is made at start and put together here from DER (RFC 5280 4.1): x509.CreateCertificate costs a
// small box 48 kB, and nobody looks at what it would check. Browsers take keys of P-256 and none of Ed25519.
const (
	derVersion  = "\xa0\x03\x02\x01\x02"
	derName     = "\x30\x14\x31\x12\x30\x10\x06\x03\x55\x04\x03\x0c\x09localhost"
	derValidity = "\x30\x22\x18\x0f20200101000000Z\x18\x0f20991231235959Z"
)

// der is an element of at most 64 KiB.
func der(tag byte, body string) string {
	switch n := len(body); {
	case n < 128:
		return string([]byte{tag, byte(n)}) + body
	case n < 256:
		return string([]byte{tag, 0x81, byte(n)}) + body
	default:
		return string([]byte{tag, 0x82, byte(n >> 8), byte(n)}) + body
	}
}

// signed is the part of a certificate that is signed, by the algorithm, around a public key.
func signed(algorithm, public string) (string, error) {
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return "", fmt.Errorf("certificate: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40
	return der(0x30, derVersion+der(0x02, string(serial[:]))+algorithm+derName+derValidity+derName+public), nil
}

// whole is the certificate.
func whole(signed, algorithm string, signature []byte) []byte {
	return []byte(der(0x30, signed+algorithm+der(0x03, "\x00"+string(signature))))
}
