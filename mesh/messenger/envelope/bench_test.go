package envelope

import "testing"

func BenchmarkWork(b *testing.B) {
	n := uint64(0)
	for b.Loop() {
		n++
		work(EnvelopeID{1}, n)
	}
}

func BenchmarkSafetyNumber(b *testing.B) {
	x, y := identity(b, 1).Public(), identity(b, 2).Public()
	for b.Loop() {
		SafetyNumber(x, y)
	}
}

func BenchmarkSealOpen(b *testing.B) {
	from, to, s := identity(b, 1), identity(b, 2), secret(7)
	for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
		p := prekey(b, s, suite)
		bundle := sampleBundle(from, to)
		raw, err := Seal(bundle, from, p, SealOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("seal/"+suite.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Seal(bundle, from, p, SealOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("open/"+suite.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(raw, to.Public(), only(s)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
