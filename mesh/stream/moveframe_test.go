package stream

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func FuzzParseAsk(f *testing.F) {
	f.Add(Ask{Stream: 1 << 62}.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAsk(b)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(a.Append(nil), b) {
			t.Errorf("%x became %x", b, a.Append(nil))
		}
	})
}

func FuzzParseOffer(f *testing.F) {
	f.Add(Offer{Port: 4443, Token: [secretLen]byte{1}, Proof: [secretLen]byte{2}}.Append(nil))
	f.Add(make([]byte, offerLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOffer(b)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatal(err)
			}
			return
		}
		if o.Port == 0 || !bytes.Equal(o.Append(nil), b) {
			t.Errorf("%x became %x", b, o.Append(nil))
		}
	})
}

func TestHeld(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tc := range []struct {
		name       string
		sent, lost float64
		least, now time.Duration
		want       bool
	}{
		{"long and lossy", 200, 2, 100 * ms, 101 * ms, true},
		{"long, little loss", 10_000, 2, 100 * ms, 100 * ms, true},
		{"half as long, a loss in a thousand", 2000, 2, 20 * ms, 20 * ms, true},
		{"in the same house", 200, 2, ms / 2, ms, false},
		{"hardly any loss", 20_000, 2, 5 * ms, 5 * ms, false},
		{"none", 20_000, 0, 100 * ms, 100 * ms, false},
		{"a full queue", 200, 10, 20 * ms, 90 * ms, false},
		{"nothing known", 0, 0, 0, 0, false},
	} {
		s := sample{sent: tc.sent, lost: tc.lost, minRTT: tc.least, meanRTT: tc.now}
		if got := s.held(); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestHealth: one bad sample is the end of slow start; two are the path. Losses taken back do no harm.
func TestHealth(t *testing.T) {
	t.Parallel()
	var h health
	rtt := 100 * time.Millisecond
	for i, step := range []struct {
		sent, lost  uint64
		held, known bool
	}{
		{50, 10, false, false},        // too few packets
		{150, 10, false, false},       // a first sample
		{300, 10, false, false},       // no losses, and no sample
		{400, 12, true, true},         // the second
		{450, 13, true, true},         // none
		{500, 5, true, true},          // taken back
		{25_000, 5, false, true},      // good
		{25_100, 7, false, false},     // bad once
		{25_200, 9, true, true},       // twice
		{26_000, 1 << 20, true, true}, // nonsense stays nonsense
	} {
		held, known := h.look(quic.ConnectionStats{PacketsSent: step.sent, PacketsLost: step.lost, MinRTT: rtt, SmoothedRTT: rtt})
		if held != step.held || known != step.known {
			t.Errorf("step %d: held %v, known %v", i, held, known)
		}
	}
}
