package meshtest

import (
	"log/slog"
	"os"
	"testing"
	"time"
)

func testLog() *slog.Logger {
	if os.Getenv("MESHTEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestPingOverRelay(t *testing.T) {
	t.Parallel()
	n := New(1, testLog())
	a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	n.Run(2 * time.Second)
	var rtt time.Duration
	var got error
	done := false
	a.Ping(b.Key, func(d time.Duration, err error) { rtt, got, done = d, err, true })
	n.RunUntil(5*time.Second, func() bool { return done })
	if !done || got != nil {
		t.Fatalf("ping: done %v, %v", done, got)
	}
	if rtt != 20*time.Millisecond {
		t.Errorf("rtt %v, want 20 ms", rtt)
	}
}
