package messenger

import (
	"context"
	"encoding/binary"
	"time"
)

// handle gives stored items to their handlers, one after the other.
func (e *Engine) handle(ctx context.Context) {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		if !e.handleAll(ctx) {
			retry.Reset(handlerRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.todo:
		case <-retry.C:
		}
	}
}

// handleAll reports false if a handler is to be called again.
func (e *Engine) handleAll(ctx context.Context) bool {
	again := map[uint32]bool{} // devices whose later items wait for an earlier one
	for from := []byte(nil); ctx.Err() == nil; {
		e.mu.Lock()
		page := e.core.db.list(bTodo, from, nil, 16, false)
		e.mu.Unlock()
		for _, x := range page {
			from = append(append([]byte{}, x.key...), 0)
			if len(x.value) < 4 {
				continue
			}
			n := binary.BigEndian.Uint32(x.value)
			if !again[n] && !e.handleOne(ctx, n, x) {
				again[n] = true
			}
		}
		if len(page) < 16 {
			break
		}
	}
	return len(again) == 0
}

func (e *Engine) handleOne(ctx context.Context, n uint32, x entry) bool {
	it, err := parseQueued(x.value[4:])
	e.mu.Lock()
	var from Sender
	if d := e.core.devByNo[n]; d != nil && d.account != nil {
		from = Sender{Account: d.account.key, Device: d.key, Own: d.account.key == e.core.account}
	}
	e.mu.Unlock()
	if h := e.handlers[it.Kind]; err == nil && h != nil && !from.Account.IsZero() {
		step, cancel := context.WithTimeout(ctx, handlerTime)
		err := h(step, from, it)
		cancel()
		if err != nil {
			if e.cfg.Log != nil {
				e.cfg.Log.Warn("messenger handler will be called again", "type", it.Kind, "err", err)
			}
			return false
		}
	}
	e.call(func(c *core) { c.db.delete(bTodo, x.key); c.lazy = true })
	return true
}
