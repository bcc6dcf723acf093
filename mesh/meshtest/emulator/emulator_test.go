package emulator

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"
)

// send puts n frames of size bytes, one every gap, and returns their numbers and times as they arrive.
func send(t *testing.T, p Profile, seed uint64, n, size int, gap time.Duration) (numbers []int, at []time.Duration, s Stats) {
	t.Helper()
	d, err := NewDirection(p, seed)
	if err != nil {
		t.Fatal(err)
	}
	take := func(now time.Duration) {
		for f, ok := d.Take(now); ok; f, ok = d.Take(now) {
			numbers, at = append(numbers, int(binary.BigEndian.Uint32(f))), append(at, now)
		}
	}
	buf := make([]byte, size)
	for i := range n {
		now := time.Duration(i) * gap
		for next, ok := d.Next(); ok && next <= now; next, ok = d.Next() {
			take(next)
		}
		binary.BigEndian.PutUint32(buf, uint32(i))
		d.Put(now, buf)
	}
	for next, ok := d.Next(); ok; next, ok = d.Next() {
		take(next)
	}
	return numbers, at, d.Stats()
}

func TestPerfect(t *testing.T) {
	t.Parallel()
	numbers, at, _ := send(t, Profile{}, 1, 100, 60, time.Millisecond)
	if len(numbers) != 100 || !slices.IsSorted(numbers) || at[99] != 99*time.Millisecond {
		t.Error(len(numbers), at[99])
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	const n = 100_000
	_, _, s := send(t, Profile{Loss: 0.01}, 7, n, 60, time.Microsecond)
	// Five standard deviations of a binomial around the mean.
	if dev := math.Abs(float64(s.Lost) - n*0.01); dev > 5*math.Sqrt(n*0.01*0.99) {
		t.Errorf("lost %d of %d", s.Lost, n)
	}
	if s.Delivered+s.Lost != s.Put {
		t.Errorf("%+v", s)
	}
}

func TestDelayJitterKeepsOrder(t *testing.T) {
	t.Parallel()
	numbers, at, _ := send(t, Profile{Delay: 100 * time.Millisecond, Jitter: 20 * time.Millisecond}, 3, 1000, 60, 10*time.Millisecond)
	if !slices.IsSorted(numbers) {
		t.Error("jitter reordered")
	}
	low, high := time.Hour, time.Duration(0)
	for i, a := range at {
		took := a - time.Duration(numbers[i])*10*time.Millisecond
		low, high = min(low, took), max(high, took)
	}
	if low < 100*time.Millisecond || low > 103*time.Millisecond || high > 120*time.Millisecond || high < 115*time.Millisecond {
		t.Errorf("between %v and %v", low, high)
	}
}

func TestReorderAndDuplicate(t *testing.T) {
	t.Parallel()
	numbers, _, s := send(t, Profile{Delay: 10 * time.Millisecond, Reorder: 0.1, Duplicate: 0.1}, 3, 1000, 60, time.Millisecond)
	if slices.IsSorted(numbers) || s.Reordered < 50 || s.Duplicated < 50 || len(numbers) != 1000+int(s.Duplicated) {
		t.Errorf("%d arrived, %+v", len(numbers), s)
	}
	slices.Sort(numbers)
	if len(slices.Compact(numbers)) != 1000 {
		t.Error("a frame is missing")
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	// 1,250-byte frames every 5 ms are 2 Mbit/s into 1 Mbit/s: half overflows, the rest leaves every 10 ms.
	numbers, at, s := send(t, Profile{Rate: 1_000_000, Queue: 5000}, 3, 1000, 1250, 5*time.Millisecond)
	if s.Overflowed < 490 || s.Overflowed > 510 || !slices.IsSorted(numbers) {
		t.Errorf("%+v", s)
	}
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < 10*time.Millisecond {
			t.Fatalf("frames %v apart", at[i]-at[i-1])
		}
	}
	if late := at[len(at)-1] - 4995*time.Millisecond; late > 50*time.Millisecond {
		t.Errorf("the queue held %v", late)
	}
}

func TestMTU(t *testing.T) {
	t.Parallel()
	_, _, s := send(t, Profile{MTU: 576}, 3, 1, 576+14, 0)
	if s.Delivered != 1 {
		t.Errorf("%+v", s)
	}
	if _, _, s = send(t, Profile{MTU: 576}, 3, 1, 577+14, 0); s.TooBig != 1 {
		t.Errorf("%+v", s)
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	p := Profile{Loss: 0.1, Duplicate: 0.1, Reorder: 0.2, Delay: time.Millisecond, Jitter: time.Millisecond, Rate: 5_000_000}
	a, at, _ := send(t, p, 42, 2000, 500, 700*time.Microsecond)
	b, bt, _ := send(t, p, 42, 2000, 500, 700*time.Microsecond)
	if !slices.Equal(a, b) || !slices.Equal(at, bt) {
		t.Error("the same seed gave another run")
	}
	if c, _, _ := send(t, p, 43, 2000, 500, 700*time.Microsecond); slices.Equal(a, c) {
		t.Error("another seed gave the same run")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, p := range []Profile{{Loss: -1}, {Duplicate: 1.1}, {Delay: -1}, {MTU: -1}} {
		if _, err := NewDirection(p, 1); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func BenchmarkDirection(b *testing.B) {
	d, err := NewDirection(Profile{Delay: time.Millisecond, Loss: 0.01}, 1)
	if err != nil {
		b.Fatal(err)
	}
	frame := make([]byte, 1514)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now := time.Duration(i) * 10 * time.Microsecond
		d.Put(now, frame)
		d.Take(now)
	}
}
