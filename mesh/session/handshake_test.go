package session

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/flynn/noise"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

func identity(t testing.TB, first byte) *key.Private {
	t.Helper()
	for {
		if k, err := key.FromSeed([32]byte(bytes.Repeat([]byte{first}, 32))); err == nil {
			return k
		}
		first++
	}
}

func config(k *key.Private) Config {
	return Config{Identity: k, Network: key.Open(), Purpose: Link, Ciphers: ChaCha}
}

func accept(p wire.Payload) func(key.Public, wire.Payload) (wire.Payload, error) {
	return func(key.Public, wire.Payload) (wire.Payload, error) { return p, nil }
}

// shake runs one handshake and gives both ends' keys.
func shake(t testing.TB, a, b Config, ida, idb uint8) (*Keys, *Keys) {
	t.Helper()
	h, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: ida, Boot: 1})
	if err != nil {
		t.Fatal(err)
	}
	m2, kb, err := Respond(b, m1, accept(wire.Payload{Key: idb, Boot: 2}))
	if err != nil {
		t.Fatal(err)
	}
	ka, err := h.Finish(m2)
	if err != nil {
		t.Fatal(err)
	}
	return ka, kb
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	all := ChaCha | AES
	for _, c := range []struct {
		name     string
		a, b     Cipher
		want     Cipher
		purpose  Purpose
		bind     []byte
		wantHops bool
	}{
		{"chacha both", ChaCha, ChaCha, ChaCha, Link, nil, true},
		{"aes both", all, all, AES, Link, nil, true},
		{"aes at one end", all, ChaCha, ChaCha, Link, nil, true},
		{"aes at the other", ChaCha, all, ChaCha, Link, nil, true},
		{"rekey of a link", all, all, AES, Link, make([]byte, 32), true},
		{"session", all, all, AES, Session, make([]byte, 32), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := config(identity(t, 1)), config(identity(t, 30))
			a.Ciphers, b.Ciphers, a.Purpose, b.Purpose, a.Bind, b.Bind = c.a, c.b, c.purpose, c.purpose, c.bind, c.bind
			ka, kb := shake(t, a, b, 7, 9)
			if ka.Cipher != c.want || kb.Cipher != c.want || ka.Send.Cipher() != c.want {
				t.Errorf("ciphers %v and %v, want %v", ka.Cipher, kb.Cipher, c.want)
			}
			if ka.Hash != kb.Hash || ka.SendID != 9 || ka.RecvID != 7 || kb.SendID != 7 || kb.RecvID != 9 || !ka.Initiator || kb.Initiator {
				t.Errorf("keys disagree: %+v %+v", ka, kb)
			}
			if ka.Peer != b.Identity.Public() || kb.Peer != a.Identity.Public() || ka.Theirs.Boot != 2 || kb.Theirs.Boot != 1 {
				t.Error("peer or payload wrong")
			}
			hops := ka.HopSend == kb.HopRecv && ka.HopRecv == kb.HopSend && ka.HopSend != ka.HopRecv && ka.HopSend != HopKey{}
			if hops != c.wantHops {
				t.Errorf("hop keys %x %x", ka.HopSend, ka.HopRecv)
			}
			var n [12]byte
			PathNonce(&n, 4, 1, 1<<40)
			for _, d := range []struct{ from, to *Keys }{{ka, kb}, {kb, ka}} {
				sealed := d.from.Send.Seal(nil, &n, []byte("hello"), []byte{0x18, 9})
				if got, err := d.to.Recv.Open(nil, &n, sealed, []byte{0x18, 9}); err != nil || string(got) != "hello" {
					t.Errorf("open: %q, %v", got, err)
				}
				if _, err := d.from.Recv.Open(nil, &n, sealed, []byte{0x18, 9}); !errors.Is(err, ErrOpen) {
					t.Error("a frame reflected to its sender opens")
				}
			}
		})
	}
}

// Attack list E 8: a handshake made for one use is refused by all others.
func TestPurposesAreApart(t *testing.T) {
	t.Parallel()
	k, peer := identity(t, 1), identity(t, 30)
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	uses := []Config{
		{Purpose: Link, Network: key.Open()},
		{Purpose: Link, Network: key.Cluster(k.Public())},
		{Purpose: Link, Network: key.Open(), Bind: one},
		{Purpose: Session, Network: key.Open(), Bind: one},
		{Purpose: Session, Network: key.Open(), Bind: two},
		{Purpose: Session, Network: key.Cluster(k.Public()), Bind: one},
	}
	for i, a := range uses {
		a.Identity = k
		_, m1, err := Initiate(a, peer.Public(), wire.Payload{Key: 1})
		if err != nil {
			t.Fatal(err)
		}
		for j, b := range uses {
			b.Identity = peer
			_, _, err := Respond(b, m1, accept(wire.Payload{Key: 1}))
			if ok := err == nil; ok != (i == j) {
				t.Errorf("use %d delivered as use %d: %v", i, j, err)
			}
		}
	}
}

// Attack list E 6: answers with a zero ephemeral, or forged, before the true one.
func TestForgedAnswersFirst(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	h, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	zeroInit := append(make([]byte, 32), m1[32:]...)
	if _, _, err := Respond(b, zeroInit, accept(wire.Payload{Key: 2})); !errors.Is(err, ErrLowOrder) {
		t.Errorf("zero first message: %v", err)
	}
	m2, kb, err := Respond(b, m1, accept(wire.Payload{Key: 2}))
	if err != nil {
		t.Fatal(err)
	}
	zero := append(make([]byte, 32), m2[32:]...)
	for range 100 { // costs the handshake nothing
		if _, err := h.Finish(zero); !errors.Is(err, ErrLowOrder) {
			t.Fatalf("zero answer: %v", err)
		}
	}
	flipped := bytes.Clone(m2)
	flipped[60] ^= 1
	_, other, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := Respond(b, other, accept(wire.Payload{Key: 2}))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{flipped, foreign, flipped[:111], nil} {
		if _, err := h.Finish(bad); !errors.Is(err, ErrMessage) {
			t.Fatalf("forged answer: %v", err)
		}
	}
	ka, err := h.Finish(m2)
	if err != nil || ka.Hash != kb.Hash {
		t.Fatalf("true answer after forged ones: %v", err)
	}
	if _, err := h.Finish(m2); !errors.Is(err, ErrSpent) {
		t.Errorf("second success: %v", err)
	}
}

func TestTooManyForgedAnswers(t *testing.T) {
	t.Parallel()
	a := config(identity(t, 1))
	h, _, err := Initiate(a, identity(t, 30).Public(), wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Repeat([]byte{9}, wire.Noise2Len)
	for range maxAttempts {
		if _, err := h.Finish(bad); !errors.Is(err, ErrMessage) {
			t.Fatal(err)
		}
	}
	if _, err := h.Finish(bad); !errors.Is(err, ErrSpent) {
		t.Errorf("got %v, want ErrSpent", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a, b := config(identity(t, 1)), config(identity(t, 30))
	_, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1, MaxVersion: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		reply wire.Payload
		want  error
	}{
		{"key id 0", wire.Payload{}, ErrConfig},
		{"both speak version 2", wire.Payload{Key: 1, MaxVersion: 2}, ErrVersion},
		{"one speaks version 2", wire.Payload{Key: 1}, nil},
	} {
		if _, _, err := Respond(b, m1, accept(c.reply)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, err := Respond(config(identity(t, 60)), m1, accept(wire.Payload{Key: 1})); !errors.Is(err, ErrMessage) {
		t.Errorf("a third node reads it: %v", err)
	}
	if _, _, err := Initiate(a, a.Identity.Public(), wire.Payload{Key: 1}); !errors.Is(err, ErrPeer) {
		t.Errorf("to oneself: %v", err)
	}
	if _, _, err := Initiate(a, key.Public{}, wire.Payload{Key: 1}); err == nil {
		t.Error("handshake with the zero key")
	}
	psk := b
	psk.PSK[0] = 1
	h, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
	if err != nil {
		t.Fatal(err)
	}
	m2, _, err := Respond(psk, m1, accept(wire.Payload{Key: 1}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Finish(m2); !errors.Is(err, ErrMessage) {
		t.Errorf("other pre-shared key: %v", err)
	}
}

// A responder that chooses what was not offered, or two ciphers, is refused (M2).
func TestChoiceMustBeOffered(t *testing.T) {
	t.Parallel()
	for _, choice := range []Cipher{AES, 0, ChaCha | AES, 4} {
		a, b := config(identity(t, 1)), config(identity(t, 30))
		h, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
		if err != nil {
			t.Fatal(err)
		}
		state, err := b.state(false, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := state.ReadMessage(nil, m1); err != nil {
			t.Fatal(err)
		}
		p := wire.Payload{MinVersion: 1, MaxVersion: 1, Key: 1, Network: b.Network, Ciphers: uint16(choice)}
		m2, _, _, err := state.WriteMessage(nil, p.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Finish(m2); !errors.Is(err, ErrCipher) {
			t.Errorf("choice %#x: %v, want ErrCipher", uint8(choice), err)
		}
	}
}

// staticAs is a first message of somebody whose static key pair need not be honest.
func staticAs(t *testing.T, to Config, s noise.DHKey) []byte {
	t.Helper()
	pub := to.Identity.Public().X25519()
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		Pattern:     noise.HandshakeIK, Initiator: true, Prologue: to.prologue(), PresharedKey: to.PSK[:],
		PresharedKeyPlacement: 2, StaticKeypair: s, PeerStatic: pub[:],
	})
	if err != nil {
		t.Fatal(err)
	}
	p := wire.Payload{MinVersion: 1, MaxVersion: 1, Key: 1, Network: to.Network, Ciphers: uint16(ChaCha)}
	m1, _, _, err := state.WriteMessage(nil, p.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return m1
}

// A handshake proves exactly one identity (H5): each X25519 key gives one back, and a key with a torsion part,
// which has the same secret, gives none.
func TestStaticKeyNamesOneIdentity(t *testing.T) {
	t.Parallel()
	b := config(identity(t, 30))
	for i := range byte(20) {
		secret := [32]byte{i, 9: 1}
		s, err := noise.DH25519.GenerateKeypair(bytes.NewReader(secret[:]))
		if err != nil {
			t.Fatal(err)
		}
		_, k, err := Respond(b, staticAs(t, b, s), accept(wire.Payload{Key: 1}))
		if err != nil {
			t.Fatalf("honest key refused: %v", err)
		}
		if x := k.Peer.X25519(); !bytes.Equal(s.Public, x[:]) {
			t.Fatalf("proved %x, named %v", s.Public, k.Peer)
		}
	}
	secret := identity(t, 1).X25519()
	mixed, err := hex.DecodeString("63d4fafc72edf878e9cb994ac15c450aa5f8a142be18a483c991cf31bba9d329") // A + T of order 8
	if err != nil {
		t.Fatal(err)
	}
	m1 := staticAs(t, b, noise.DHKey{Private: secret[:], Public: mixed})
	if _, k, err := Respond(b, m1, accept(wire.Payload{Key: 1})); !errors.Is(err, ErrPeer) {
		t.Errorf("A+T accepted: %v, %v", k, err)
	}
}

func TestProof(t *testing.T) {
	t.Parallel()
	ka, kb := shake(t, config(identity(t, 1)), config(identity(t, 30)), 3, 4)
	bind := [32]byte{5}
	end := ka.SealProof(6, bind)
	if len(end) != ProofLen || len(end) > wire.MaxEnd {
		t.Fatalf("proof of %d bytes", len(end))
	}
	if !kb.OpenProof(6, bind, end) {
		t.Error("true proof refused")
	}
	if kb.OpenProof(8, bind, end) || kb.OpenProof(6, [32]byte{6}, end) || ka.OpenProof(6, bind, end) || kb.OpenProof(6, bind, end[:48]) || kb.OpenProof(6, bind, nil) {
		t.Error("wrong proof accepted")
	}
}

// The suite and pattern as configured here against the published vectors (testdata/vectors.txt, taken from
// flynn/noise, which took them from the Noise wiki).
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(strings.TrimSpace(string(b)), "\n\n")
	for _, block := range blocks {
		v := map[string][]byte{}
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if name == "handshake" {
				if value != "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s" {
					t.Fatalf("vector of %s", value)
				}
				continue
			}
			if v[name], err = hex.DecodeString(value); err != nil {
				t.Fatal(err)
			}
		}
		runVector(t, v)
	}
	if len(blocks) < 4 {
		t.Errorf("only %d vectors", len(blocks))
	}
}

func runVector(t *testing.T, v map[string][]byte) {
	t.Helper()
	pair := func(secret []byte) noise.DHKey {
		k, err := noise.DH25519.GenerateKeypair(bytes.NewReader(secret))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	state := func(initiator bool, static, ephemeral, peer []byte) *noise.HandshakeState {
		s, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
			Random:      bytes.NewReader(ephemeral), Pattern: noise.HandshakeIK, Initiator: initiator,
			Prologue: v["prologue"], PresharedKey: v["preshared_key"], PresharedKeyPlacement: 2,
			StaticKeypair: pair(static), PeerStatic: peer,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := state(true, v["init_static"], v["gen_init_ephemeral"], pair(v["resp_static"]).Public)
	b := state(false, v["resp_static"], v["gen_resp_ephemeral"], nil)
	m1, _, _, err := a.WriteMessage(nil, v["msg_0_payload"])
	if err != nil || !bytes.Equal(m1, v["msg_0_ciphertext"]) {
		t.Fatalf("message 1 is %x, %v", m1, err)
	}
	if p, _, _, err := b.ReadMessage(nil, m1); err != nil || !bytes.Equal(p, v["msg_0_payload"]) {
		t.Fatalf("message 1 reads %x, %v", p, err)
	}
	m2, toA, toB, err := b.WriteMessage(nil, v["msg_1_payload"])
	if err != nil || !bytes.Equal(m2, v["msg_1_ciphertext"]) {
		t.Fatalf("message 2 is %x, %v", m2, err)
	}
	_, _, _, err = a.ReadMessage(nil, m2)
	if err != nil {
		t.Fatal(err)
	}
	// The first of Split is the initiator's to send with: the order that Keys.split relies on.
	for i, cs := range []*noise.CipherState{toA, toB} {
		n := []string{"msg_2", "msg_3"}[i]
		got, err := cs.Encrypt(nil, nil, v[n+"_payload"])
		if err != nil || !bytes.Equal(got, v[n+"_ciphertext"]) {
			t.Fatalf("%s is %x, %v", n, got, err)
		}
	}
}

func FuzzRespond(f *testing.F) {
	a, b := config(identity(f, 1)), config(identity(f, 30))
	a.Random = bytes.NewReader(make([]byte, 32)) // the same message in each of the fuzzer's processes
	_, m1, err := Initiate(a, b.Identity.Public(), wire.Payload{Key: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m1)
	f.Add(make([]byte, wire.Noise1Len))
	f.Fuzz(func(t *testing.T, m []byte) {
		if _, k, err := Respond(b, m, accept(wire.Payload{Key: 1})); err == nil && !bytes.Equal(m, m1) {
			t.Fatalf("made-up message accepted from %v", k.Peer)
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	x, y := config(identity(b, 1)), config(identity(b, 30))
	b.ReportAllocs()
	for b.Loop() {
		shake(b, x, y, 1, 2)
	}
}
