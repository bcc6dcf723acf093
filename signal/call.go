package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// Call asks method and decodes the answer into result (nil: dropped). It waits as long as ctx lets it, also for its
// turn when MaxRequests calls wait for answers already; the deadline of ctx is told to the peer. An error of the peer is an *Error.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	files, err := c.call(ctx, method, params, result, nil)
	closeFiles(files)
	return err
}

// CallFile is Call with open files passed along, at most MaxFiles; they stay the caller's to close.
func (c *Conn) CallFile(ctx context.Context, method string, params, result any, f ...*os.File) error {
	files, err := c.call(ctx, method, params, result, f)
	closeFiles(files)
	return err
}

// CallForFiles is Call for a method whose answer passes descriptors; the caller closes them.
func (c *Conn) CallForFiles(ctx context.Context, method string, params, result any) ([]*os.File, error) {
	return c.call(ctx, method, params, result, nil)
}

func (c *Conn) call(ctx context.Context, method string, params, result any, files []*os.File) ([]*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := marshalParams(params)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	// The peer answers no more than MaxRequests at once: wait here instead of being told "busy".
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, callEnded(ctx, method)
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.next++
	id := c.next
	c.calls[id] = ch
	c.mu.Unlock()
	m := message{ID: fmt.Appendf(nil, "%d", id), Method: method, Params: raw}
	if d, ok := ctx.Deadline(); ok {
		m.Timeout = max(1, time.Until(d).Milliseconds())
	}
	if err := c.write(m, files); err != nil {
		c.forget(id, ch)
		return nil, err
	}
	select {
	case a, ok := <-ch:
		return decodeAnswer(a, ok, method, result)
	case <-ctx.Done():
		c.forget(id, ch)
		c.Notify(cancelMethod, map[string]uint64{"id": id})
		return nil, callEnded(ctx, method)
	case <-c.closed:
		select {
		case a, ok := <-ch: // it came just before the end
			return decodeAnswer(a, ok, method, result)
		default:
		}
		c.forget(id, ch)
		return nil, ErrClosed
	}
}

func callEnded(ctx context.Context, method string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("call %s: %w", method, context.DeadlineExceeded)
	}
	return ctx.Err()
}

// forget drops a call that nobody waits for, and what may have arrived for it meanwhile.
func (c *Conn) forget(id uint64, ch chan answer) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
	select {
	case a := <-ch:
		closeFiles(a.files)
	default:
	}
}

func decodeAnswer(a answer, ok bool, method string, result any) ([]*os.File, error) {
	switch {
	case !ok:
		return nil, ErrClosed
	case a.line.Error != nil:
		closeFiles(a.files)
		return nil, a.line.Error
	case result == nil || len(a.line.Result) == 0:
		return a.files, nil
	}
	if err := json.Unmarshal(a.line.Result, result); err != nil {
		closeFiles(a.files)
		return nil, fmt.Errorf("answer of %s: %w", method, err)
	}
	return a.files, nil
}

// Notify sends a notification: nobody answers. It may block up to WriteTimeout on a slow peer.
func (c *Conn) Notify(method string, params any) error {
	raw, err := marshalParams(params)
	if err != nil {
		return fmt.Errorf("notify %s: %w", method, err)
	}
	return c.write(message{Method: method, Params: raw}, nil)
}

func marshalParams(params any) (json.RawMessage, error) {
	if params == nil {
		return nil, nil
	}
	return json.Marshal(params)
}

// resolve hands an answer to the call that waits; an answer nobody waits for is dropped.
func (c *Conn) resolve(m message, files []*os.File) {
	var id uint64
	if json.Unmarshal(m.ID, &id) != nil {
		closeFiles(files)
		return
	}
	c.mu.Lock()
	ch := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if ch == nil {
		closeFiles(files)
		return
	}
	ch <- answer{m, files} // capacity 1 and only one sender: never blocks
}
