package envelope

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"strings"

	"skywire/mesh/key"
)

// safetyRounds makes a number that looks like another's cost 2^100 times this much work; a router needs a
// quarter of a second for both halves (BenchmarkSafetyNumber on an emulated mipsle).
const safetyRounds = 5200

// SafetyNumber is what two people compare by voice: 60 digits in 12 groups of 5, the same from both sides. It is Signal's
// numeric fingerprint (libsignal, NumericFingerprintGenerator) with the key itself as the stable name: of each account 30
// digits of SHA-512, iterated, the lower half first.
func SafetyNumber(a, b key.Public) string {
	x, y := half(a), half(b)
	if x > y {
		x, y = y, x
	}
	all := x + y
	groups := make([]string, 0, len(all)/5)
	for ; all != ""; all = all[5:] {
		groups = append(groups, all[:5])
	}
	return strings.Join(groups, " ")
}

// half is 30 digits of a key.
//
//	h0 = SHA-512(0, 1 │ key │ "skywire account 1"), h(n+1) = SHA-512(h(n) │ key); 6 times 5 bytes of the last, each modulo 100000
func half(k key.Public) string {
	h := sha512.Sum512(bytes.Join([][]byte{{0, 1}, k[:], []byte("skywire account 1")}, nil))
	var in [sha512.Size + key.Size]byte
	copy(in[sha512.Size:], k[:])
	for range safetyRounds {
		copy(in[:], h[:])
		h = sha512.Sum512(in[:])
	}
	var b strings.Builder
	for i := range 6 {
		v := uint64(0)
		for _, c := range h[5*i : 5*i+5] {
			v = v<<8 | uint64(c)
		}
		fmt.Fprintf(&b, "%05d", v%100000)
	}
	return b.String()
}
