package stream

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/mesh/key"
)

// alpn names the version of the frames on streams.
const alpn = "skywire/1"

// certificate wraps the node's key in the X.509 that TLS wants. Nothing in it but the key is ever looked at, so its
// dates hold in 1970 too.
func certificate(k *key.Private) (tls.Certificate, error) {
	private := k.TLS()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

// tlsFor is the configuration of either side towards one peer. The usual checks are replaced by one: the key.
func tlsFor(cert tls.Certificate, peer key.Public) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // no names, no authorities, no dates: VerifyConnection has the last word
		SessionTicketsDisabled: true, // a resumed session would show no certificate
		// One curve: the session below has no other either, and a ClientHello of one packet suits lossy paths.
		CurvePreferences: []tls.CurveID{tls.X25519},
		VerifyConnection: func(s tls.ConnectionState) error { return verify(s, peer) },
	}
}

// verify checks that the other side has proved the key of the session that its packets come in.
func verify(s tls.ConnectionState, peer key.Public) error {
	if len(s.PeerCertificates) != 1 || s.DidResume {
		return fmt.Errorf("%d certificates: %w", len(s.PeerCertificates), ErrIdentity)
	}
	pub, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || string(pub) != string(peer[:]) {
		return fmt.Errorf("not %s: %w", peer.Short(), ErrIdentity)
	}
	return nil
}

// serverTLS picks the peer by the mesh address that the handshake comes from.
func (e *Endpoint) serverTLS() *tls.Config {
	c := tlsFor(e.cert, key.Public{}) // matches nobody
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		from, ok := hello.Conn.RemoteAddr().(*net.UDPAddr)
		if !ok {
			return nil, ErrIdentity
		}
		a, _ := netip.AddrFromSlice(from.IP)
		p := e.lookup(a)
		if p == nil {
			return nil, ErrIdentity
		}
		return tlsFor(e.cert, p.key), nil
	}
	return c
}

// resetKey makes the stateless resets of a restarted node those of its former life: peers learn at once that their
// connections are gone.
func resetKey(k *key.Private) (*quic.StatelessResetKey, error) {
	seed := k.Seed()
	b, err := hkdf.Key(sha256.New, seed[:], nil, "skywire 1 stateless reset", 32)
	if err != nil {
		return nil, fmt.Errorf("derive reset key: %w", err)
	}
	out := quic.StatelessResetKey(b)
	return &out, nil
}
