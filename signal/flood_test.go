package signal

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// flood runs a connection whose peer writes lines and reads nothing, and returns how many calls of the handler there
// were when everything stood still.
func flood(t *testing.T, h Handler, lines int, line func(i int) string) int64 {
	t.Helper()
	var calls atomic.Int64
	mine, theirs := net.Pipe()
	c := NewConn(theirs, func(ctx context.Context, r *Request) (any, error) {
		calls.Add(1)
		return h(ctx, r)
	})
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(t.Context()) })
	wg.Go(func() {
		for i := range lines {
			if _, err := mine.Write([]byte(line(i) + "\n")); err != nil {
				return
			}
		}
	})
	synctest.Wait()
	n := calls.Load()
	mine.Close()
	c.Close()
	wg.Wait()
	return n
}

// TestAnswersNobodyReads: a peer that asks on and on and reads no answer must not pile them up here. Real time: who waits
// for a lock does not stand still to synctest.
func TestAnswersNobodyReads(t *testing.T) {
	t.Parallel()
	mine, theirs := net.Pipe()
	var calls atomic.Int64
	c := NewConn(theirs, func(context.Context, *Request) (any, error) {
		calls.Add(1)
		return "x", nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(t.Context()) })
	wg.Go(func() {
		for i := range 10 * MaxRequests {
			if _, err := fmt.Fprintf(mine, `{"jsonrpc":"2.0","id":%d,"method":"a"}`+"\n", i); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // each is answered before the next comes
		}
	})
	for last := int64(-1); last != calls.Load(); {
		last = calls.Load()
		time.Sleep(200 * time.Millisecond)
	}
	if n := calls.Load(); n > 2*MaxRequests {
		t.Errorf("%d answers wait for a peer that does not read, want at most %d", n, 2*MaxRequests)
	}
	mine.Close()
	c.Close()
	wg.Wait()
}

// TestLongRequests: requests at their longest are memory for as long as they are answered.
func TestLongRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = MaxLine / 2
		text := strings.Repeat("x", size)
		hang := func(ctx context.Context, _ *Request) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		n := flood(t, hang, MaxRequests, func(i int) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"a","params":{"a":%q}}`, i, text)
		})
		if n*size > 4<<20 {
			t.Errorf("%d requests of %d bytes are held at once, want at most 4 MiB", n, size)
		}
	})
}

// TestLongNotes: a handler that is slow holds up a peer's notifications in its connection, not in memory.
func TestLongNotes(t *testing.T) {
	t.Parallel()
	const notes = 40 // five times what is taken ahead
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		slow := make(chan struct{})
		c := NewConn(theirs, func(context.Context, *Request) (any, error) {
			<-slow
			return nil, nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(t.Context()) })
		var sent atomic.Int64
		wg.Go(func() {
			text := strings.Repeat("x", MaxLine/2)
			for range notes {
				if _, err := fmt.Fprintf(mine, `{"jsonrpc":"2.0","method":"a","params":{"a":%q}}`+"\n", text); err != nil {
					return
				}
				sent.Add(MaxLine / 2)
			}
		})
		synctest.Wait()
		if n := sent.Load(); n > 4<<20+2*MaxLine {
			t.Errorf("%d bytes of notifications taken ahead of their handler", n)
		}
		close(slow)
		time.Sleep(time.Second) // of a bubble: the rest arrives
		if n := sent.Load(); n != notes*MaxLine/2 {
			t.Errorf("%d bytes arrived after the handler went on, want all", n)
		}
		mine.Close()
		c.Close()
		wg.Wait()
	})
}
