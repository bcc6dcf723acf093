package signal

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// serve starts the goroutine that answers one request.
func (c *Conn) serve(ctx context.Context, m message, files []*os.File, handlers *sync.WaitGroup) error {
	key := string(m.ID)
	if k := key[0]; k != '"' && k != '-' && (k < '0' || k > '9') {
		closeFiles(files)
		return c.write(message{ID: json.RawMessage("null"), Error: Errorf(ErrInvalid, "an id is a number or a string")}, nil)
	}
	c.mu.Lock()
	_, twice := c.serving[key]
	// The peer may have an answer, and ask again, before the goroutine that wrote it is done: twice the number are open
	// at most. One that reads no answers gets no further.
	full := len(c.serving) >= MaxRequests || c.open >= 2*MaxRequests || c.held > 0 && c.held+len(m.Params) > MaxHeld
	var cancel context.CancelFunc
	if !twice && !full {
		if m.Timeout > 0 && m.Timeout < int64(365*24*time.Hour/time.Millisecond) {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(m.Timeout)*time.Millisecond)
		} else {
			ctx, cancel = context.WithCancel(ctx)
		}
		c.serving[key] = cancel
		c.open++
		c.held += len(m.Params)
	}
	c.mu.Unlock()
	if twice || full {
		closeFiles(files)
		refusal := ErrBusy
		if twice {
			refusal = Errorf(ErrInvalid, "id %s is in use", key)
		}
		return c.write(message{ID: m.ID, Error: refusal}, nil)
	}
	handlers.Go(func() {
		defer cancel()
		r := &Request{Method: m.Method, Params: m.Params, Conn: c, Files: files}
		result, err := c.handle(ctx, r)
		c.mu.Lock()
		delete(c.serving, key)
		c.mu.Unlock()
		c.answer(m.ID, result, err)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open--
		c.held -= len(m.Params)
	})
	return nil
}

// handle calls the Handler; a panic in it is answered, not fatal to the other users of the process.
func (c *Conn) handle(ctx context.Context, r *Request) (result any, err error) {
	c.mu.Lock()
	h := c.handler
	c.mu.Unlock()
	if h == nil {
		closeFiles(r.Files)
		return nil, Errorf(ErrUnknownMethod, "unknown method %q", r.Method)
	}
	defer func() {
		if p := recover(); p != nil {
			// The peer gets to know that, this program's people where.
			slog.Error("panic in a method", "type", r.Method, "cause", p, "chain", string(debug.Stack()))
			err = Errorf(ErrInternal, "%s: internal error, see the log of the other side", r.Method)
		}
	}()
	return h(ctx, r)
}

func (c *Conn) answer(id json.RawMessage, result any, err error) {
	var files []*os.File
	if rep, ok := result.(Reply); ok {
		result, files = rep.Result, rep.Files
		defer closeFiles(files)
	}
	m := message{ID: id}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err != nil {
		m.Error, files = AsError(err), nil
	} else if m.Result, err = json.Marshal(result); err != nil {
		m.Error, m.Result = Errorf(ErrInternal, "encode result: %v", err), nil
	}
	if err := c.writeLocked(m, files); errors.Is(err, ErrLineTooLong) {
		c.writeLocked(message{ID: id, Error: Errorf(ErrInternal, "the result is longer than 1 MiB")}, nil)
	}
}

// cancelMethod tells the other side that nobody waits for the answer of a request any more.
const cancelMethod = "$cancel"

func (c *Conn) cancel(params json.RawMessage) {
	var p struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(params, &p) != nil {
		return
	}
	c.mu.Lock()
	cancel := c.serving[string(p.ID)]
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
