package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/dchest/siphash"

	"skywire/mesh/wire"
)

func ciphers(t testing.TB) map[string]*AEAD {
	t.Helper()
	all := map[string]*AEAD{}
	for _, c := range []Cipher{ChaCha, AES} {
		a, err := NewAEAD(c, [32]byte{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		all[c.String()] = a
	}
	return all
}

// Seal and Open in place, with everything in the caller's scratch as the data plane holds it.
func TestAEADDoesNotAllocate(t *testing.T) {
	for name, a := range ciphers(t) {
		frame := make([]byte, 1500)
		nonce := new([12]byte)
		counter := uint64(0)
		seal := func() {
			counter++
			PathNonce(nonce, 2, 1, counter)
			a.Seal(frame[:wire.HeaderLen], nonce, frame[wire.HeaderLen:1400], frame[:wire.AADLen])
		}
		if n := testing.AllocsPerRun(100, seal); n != 0 {
			t.Errorf("%s: Seal allocates %v times", name, n)
		}
		both := func() {
			seal()
			if _, err := a.Open(frame[wire.HeaderLen:wire.HeaderLen], nonce, frame[wire.HeaderLen:1416], frame[:wire.AADLen]); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(100, both); n != 0 {
			t.Errorf("%s: Seal and Open allocate %v times", name, n)
		}
		junk := func() { _, _ = a.Open(frame[wire.HeaderLen:wire.HeaderLen], nonce, frame[wire.HeaderLen:1400], nil) }
		if n := testing.AllocsPerRun(100, junk); n != 0 {
			t.Errorf("%s: opening junk allocates %v times", name, n)
		}
	}
}

func TestHopTag(t *testing.T) {
	var k HopKey
	for i := range k {
		k[i] = byte(i)
	}
	header := make([]byte, wire.HeaderLen)
	for i := range header {
		header[i] = byte(i)
	}
	// Known answer of the algorithm itself: appendix A of the SipHash paper.
	var message [15]byte
	for i := range message {
		message[i] = byte(i)
	}
	k0, k1 := binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:])
	if got := siphash.Hash(k0, k1, message[:]); got != 0xa129ca6149be45e5 {
		t.Fatalf("SipHash-2-4 of the paper's message is %#x", got)
	}
	input := append(bytes.Clone(header[:16]), 0x05, 0x78, 0, 0, 0, 0, 0, 0)
	if got, want := k.Tag(header, 1400), siphash.Hash(k0, k1, input); got != want {
		t.Fatalf("tag %#x, want %#x", got, want)
	}
	if got := k.Tag(header[:16], 1400); got != k.Tag(header, 1400) {
		t.Error("the tag depends on its own place")
	}
	seen := map[uint64]string{k.Tag(header, 1400): "original"}
	for i := range 16 {
		changed := bytes.Clone(header)
		changed[i] ^= 1
		seen[k.Tag(changed, 1400)] = fmt.Sprint("byte ", i)
	}
	seen[k.Tag(header, 1401)] = "length"
	if len(seen) != 18 {
		t.Errorf("%d different tags of 18", len(seen))
	}
	if n := testing.AllocsPerRun(100, func() { k.Tag(header, 1400) }); n != 0 {
		t.Errorf("Tag allocates %v times", n)
	}
}

func TestNoncesNeverMeet(t *testing.T) {
	t.Parallel()
	seen := map[[12]byte]string{}
	add := func(n [12]byte, what string) {
		if other, ok := seen[n]; ok {
			t.Errorf("%s and %s share a nonce", what, other)
		}
		seen[n] = what
	}
	var n [12]byte
	for _, path := range []uint16{0, 1, 2, 0xfffe} {
		for _, lane := range []uint8{0, 1, 7, ProofLane} {
			for _, counter := range []uint64{0, 1, 256, 1 << 32, 1<<64 - 1} {
				PathNonce(&n, path, lane, counter)
				add(n, fmt.Sprint("path ", path, " lane ", lane, " counter ", counter))
			}
		}
	}
	for _, counter := range []uint64{0, 1, 256, 1 << 32, 1<<64 - 1} {
		LinkNonce(&n, counter)
		add(n, fmt.Sprint("link counter ", counter))
	}
}

func BenchmarkSeal(b *testing.B) {
	for name, a := range ciphers(b) {
		b.Run(name, func(b *testing.B) {
			frame, nonce := make([]byte, 1500), new([12]byte)
			b.SetBytes(1400)
			b.ReportAllocs()
			for b.Loop() {
				nonce[11]++
				a.Seal(frame[:24], nonce, frame[24:1424], frame[:2])
			}
		})
	}
}

func BenchmarkHopTag(b *testing.B) {
	var k HopKey
	header := make([]byte, 24)
	b.ReportAllocs()
	for b.Loop() {
		k.Tag(header, 1400)
	}
}
