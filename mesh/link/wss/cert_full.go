//go:build !(mips || mipsle || mini)

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

const derECDSA = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02" // ecdsa-with-SHA256

// certificate makes a key of P-256 and a certificate that it signs itself.
func certificate() (tls.Certificate, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	body, err := signed(derECDSA, string(public))
	if err != nil {
		return tls.Certificate{}, err
	}
	sum := sha256.Sum256([]byte(body))
	signature, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{whole(body, derECDSA, signature)}, PrivateKey: k}, nil
}
