package route

import "time"

// bucket is a token bucket over times that are handed in. The zero bucket is full.
type bucket struct {
	spent float64
	at    time.Duration
}

func (b *bucket) left(now time.Duration, rate float64, burst int) float64 {
	spent := b.spent - max(now-b.at, 0).Seconds()*rate
	return float64(burst) - max(spent, 0)
}

func (b *bucket) take(now time.Duration, rate float64, burst int) {
	b.spent = float64(burst) - b.left(now, rate, burst) + 1
	b.at = now
}
