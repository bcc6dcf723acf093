package stream

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"

	"skywire/mesh/key"
)

// alpn names the version of the frames on streams.
const alpn = "skywire/1"

// bindingLabel is the exporter label of Stream.Binding.
const bindingLabel = "EXPORTER-skywire-binding-1"

// The X.509 certificate around a key is always the same but for the key and the signature, so it stands here as DER (RFC
// 5280 4.1, RFC 8410): x509.CreateCertificate costs a small box 48 kB. Version 3, serial 1, no names, and since nothing in
// it but the key is ever looked at, dates from 1970 without an end.
const (
	derEd25519 = "\x30\x05\x06\x03\x2b\x65\x70"
	derHead    = "\x30\x81\xad"
	derSigned  = "\x30\x61\xa0\x03\x02\x01\x02\x02\x01\x01" + derEd25519 +
		"\x30\x00\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z\x30\x00\x30\x2a" + derEd25519 + "\x03\x21\x00"
	derSignature = derEd25519 + "\x03\x41\x00"
)

// certificate wraps the node's key in what TLS wants.
func certificate(k *key.Private) tls.Certificate {
	private, public := k.TLS(), k.Public()
	signed := derSigned + string(public[:])
	der := derHead + signed + derSignature + string(ed25519.Sign(private, []byte(signed)))
	return tls.Certificate{Certificate: [][]byte{[]byte(der)}, PrivateKey: private}
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
