//go:build mips || mipsle || mini

package wss

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
)

const derEd25519 = "\x30\x05\x06\x03\x2b\x65\x70"

// certificate makes an Ed25519 key and a certificate that it signs itself. Signing with P-256, for browsers that come by
// mistake, would cost this build 63 kB.
func certificate() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	body, err := signed(derEd25519, der(0x30, derEd25519+der(0x03, "\x00"+string(public))))
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{whole(body, derEd25519, ed25519.Sign(private, []byte(body)))}, PrivateKey: private}, nil
}
