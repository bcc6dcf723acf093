package wss

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// The certificate of a server is made at start, of P-256 since browsers take no Ed25519, and put together here from DER (RFC
// 5280 4.1): x509.CreateCertificate costs a small box 48 kB, and nobody looks at what it would check.
const (
	derECDSA    = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02" // ecdsa-with-SHA256
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

// certificate makes a key and a certificate that signs itself.
func certificate() (tls.Certificate, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	var serial [8]byte
	if _, err := rand.Read(serial[:]); err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40
	signed := der(0x30, derVersion+der(0x02, string(serial[:]))+derECDSA+derName+derValidity+derName+string(public))
	sum := sha256.Sum256([]byte(signed))
	signature, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	whole := der(0x30, signed+derECDSA+der(0x03, "\x00"+string(signature)))
	return tls.Certificate{Certificate: [][]byte{[]byte(whole)}, PrivateKey: k}, nil
}
