package stream

import (
	"crypto/ed25519"
	"crypto/x509"
	"testing"

	"skywire/mesh/key"
)

// TestCertificate: the bytes are a certificate of the key, signed by it, and none is left over.
func TestCertificate(t *testing.T) {
	t.Parallel()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(certificate(k).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	public := k.Public()
	if got, ok := c.PublicKey.(ed25519.PublicKey); !ok || string(got) != string(public[:]) {
		t.Errorf("public key %v", c.PublicKey)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Error(err)
	}
	if c.Version != 3 || c.NotBefore.Unix() != 0 || c.NotAfter.Year() != 9999 || c.IsCA || len(c.Extensions) != 0 {
		t.Errorf("version %d, %v to %v, CA %v, %d extensions", c.Version, c.NotBefore, c.NotAfter, c.IsCA, len(c.Extensions))
	}
}
