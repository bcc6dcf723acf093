package route

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestCostNeverRewardsWorse: whatever gets worse, the link gets no cheaper; and no measure makes it free or overflows.
func TestCostNeverRewardsWorse(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		l := Link{
			RTT: time.Duration(r.Int64N(int64(time.Second))), Loss: r.Float64(), Capacity: r.Uint64N(1 << 20),
			Jitter: time.Duration(r.Int64N(int64(time.Second))), Flaps: 8 * r.Float64(),
		}
		base := l.Cost()
		if base < HopCost || base > maxLinkCost {
			t.Fatalf("%+v costs %d", l, base)
		}
		for name, worse := range map[string]func(*Link){
			"rtt": func(l *Link) { l.RTT += time.Duration(r.Int64N(int64(time.Hour))) }, "loss": func(l *Link) { l.Loss += (1 - l.Loss) * r.Float64() },
			"jitter": func(l *Link) { l.Jitter *= 3 }, "flaps": func(l *Link) { l.Flaps++ },
			"capacity": func(l *Link) { l.Capacity = l.Capacity/2 + 1 },
		} {
			w := l
			if worse(&w); w.Capacity > l.Capacity {
				continue
			}
			if w.Cost() < base {
				t.Errorf("%s: %+v costs %d, %+v costs %d", name, l, base, w, w.Cost())
			}
			if l.cost(5) < base {
				t.Errorf("%+v: a price makes it cheaper", l)
			}
		}
	}
}

func TestCostWeighs(t *testing.T) {
	t.Parallel()
	base := Link{RTT: 10 * time.Millisecond}
	for name, c := range map[string]struct {
		l    Link
		more uint64
	}{
		"1 % of loss":          {Link{Loss: 0.01}, 20_000},
		"1 Mbit/s":             {Link{Capacity: 1000}, 48_000},
		"100 Mbit/s":           {Link{Capacity: 100_000}, 480},
		"10 ms of jitter":      {Link{Jitter: 10 * time.Millisecond}, 5_000},
		"it came back once":    {Link{Flaps: 1}, 0},
		"it flaps":             {Link{Flaps: 3}, 30_000},
		"it flaps all the day": {Link{Flaps: 100}, 100_000},
		"up since just now":    {Link{Up: 1}, 0},
	} {
		c.l.RTT = base.RTT
		if got := c.l.Cost() - base.Cost(); got != c.more {
			t.Errorf("%s: %d more, want %d", name, got, c.more)
		}
	}
}

func TestUpSteps(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		-1: 0, 0: 0, time.Second: time.Second, 3 * time.Second: 2 * time.Second, 90 * time.Second: 64 * time.Second,
		math.MaxInt64: time.Second << (maxUp - 1),
	} {
		if got := (Link{Up: UpSteps(d)}).UpFor(); got != want {
			t.Errorf("up for %v is told as %v, want %v", d, got, want)
		}
	}
}

// TestMeasuresTravel: jitter, flaps and age of links go through a record, rounded; a later version of the item goes through unread.
func TestMeasuresTravel(t *testing.T) {
	t.Parallel()
	ids := identities(t, 3)
	r := &Record{Number: 1, Links: []Link{
		{Peer: ids[1].Public(), RTT: time.Millisecond, Jitter: 100 * time.Microsecond, Flaps: 2.3, Up: 9, MTU: 1472, Carrier: CarrierTCP},
		{Peer: ids[2].Public(), Jitter: time.Hour, Flaps: math.NaN(), Up: 200, MTU: 1 << 20, Carrier: 99},
	}}
	got, err := ParseRecord(Sign(r, ids[0], open), open)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range got.Links {
		want := Link{Peer: ids[1].Public(), RTT: time.Millisecond, Jitter: 96 * time.Microsecond, Flaps: 2.25, Up: 9, MTU: 1472, Carrier: CarrierTCP}
		if l.Peer == ids[2].Public() {
			want = Link{Peer: l.Peer, Jitter: math.MaxUint16 * jitterUnit, Up: maxUp, MTU: math.MaxUint16, Carrier: maxCarrier}
		}
		if l != want {
			t.Errorf("got %+v, want %+v", l, want)
		}
	}
	later := Item{Type: itemMeasures, Value: []byte{2, 1, 2, 3}}
	got, err = ParseRecord(Sign(&Record{Number: 2, Links: []Link{{Peer: ids[1].Public()}}, Unknown: []Item{later}}, ids[0], open), open)
	if err != nil || len(got.Unknown) != 1 || string(got.Unknown[0].Value) != string(later.Value) {
		t.Errorf("a later version: %+v, %v", got, err)
	}
}

// TestMeasuresRefused: one statement has one encoding.
func TestMeasuresRefused(t *testing.T) {
	t.Parallel()
	ids := identities(t, 2)
	links := []Link{{Peer: ids[1].Public()}}
	for name, v := range map[string][]byte{
		"nothing said": {1, 0, 0, 0, 0, 0, 0}, "too short": {1, 0, 1, 0, 0, 0}, "too many": {1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		"longer up than can be": {1, 0, 0, 0, 0, 0, 31},
	} {
		c, _ := (&Record{Key: ids[0].Public(), Number: 1, Links: links}).Fit()
		body := append(appendItem(c.appendBody(nil), itemMeasures, len(v)), v...)
		sig := ids[0].Sign(kind, open, body)
		if r, err := ParseRecord(append(body, sig[:]...), open); err == nil {
			t.Errorf("%s: taken as %+v", name, r.Links)
		}
	}
}

func TestWhatIsWorthTelling(t *testing.T) {
	t.Parallel()
	base := Link{RTT: 20 * time.Millisecond, Capacity: 10_000}
	for name, c := range map[string]struct {
		now         func(*Link)
		soon, later bool
	}{
		"nothing":               {func(*Link) {}, false, false},
		"microseconds":          {func(l *Link) { l.RTT += 400 * time.Microsecond }, false, false},
		"a tenth":               {func(l *Link) { l.RTT += 3 * time.Millisecond }, false, true},
		"half":                  {func(l *Link) { l.RTT /= 2 }, true, true},
		"loss":                  {func(l *Link) { l.Loss = 0.02 }, true, true},
		"a flap":                {func(l *Link) { l.Flaps = 3 }, true, true},
		"one break":             {func(l *Link) { l.Flaps = 1 }, false, false},
		"a quarter of the rate": {func(l *Link) { l.Capacity /= 4 }, true, true},
		"its size":              {func(l *Link) { l.MTU = 1472 }, false, true},
		"time":                  {func(l *Link) { l.Up = 12 }, false, false},
	} {
		l := base
		c.now(&l)
		a, b := &Record{Links: []Link{base}}, &Record{Links: []Link{l}}
		if got := significant(a, b); got != c.soon {
			t.Errorf("%s: at once %v", name, got)
		}
		if got := drifted(a, b); got != c.later {
			t.Errorf("%s: later %v", name, got)
		}
	}
}
