package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Wait calls check until it returns nil, at most for limit; what says for what. It polls quickly at first, then five
// times a second.
func Wait(ctx context.Context, limit time.Duration, what string, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause := 10 * time.Millisecond
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // the reason before the deadline cut the check short
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%s: %w after %v: %w", what, ErrTimeout, limit, last)
			}
			return ctx.Err()
		case <-t.C:
		}
		pause = min(2*pause, 200*time.Millisecond)
	}
}
