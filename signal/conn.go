// Package signal is the control protocol of everything in Skywire: JSON-RPC 2.0 in both directions on one
// connection, one object a line, open descriptors passed beside a line where the kernel can.
//
// It does not decide who may call what (a Handler does, from Conn.Peer or what was said in hello), carries no bulk
// data and starts nothing by itself. SPEC.md describes the lines for other languages.
//
// Rules: every limit is a constant of this file. Requests are answered by a goroutine each, at most MaxRequests at
// once, the rest is answered "busy". Notifications reach the Handler one after the other, in order, so their
// handlers must not wait for a Call on the same connection. A peer that does not read is disconnected after
// WriteTimeout, one that does not finish a line after LineTimeout. Lock order: Conn.wmu and Conn.mu are never held
// together.
package signal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// MaxLine bounds one line, newline included.
	MaxLine = 1 << 20
	// MaxFiles bounds the descriptors that travel with one line.
	MaxFiles = 16
	// MaxRequests bounds the requests of one peer that are being answered at once.
	MaxRequests = 64
	// MaxNotes bounds the notifications waiting for the Handler; when full, reading pauses.
	MaxNotes = 256
	// WriteTimeout ends a connection whose peer does not read.
	WriteTimeout = 10 * time.Second
	// LineTimeout ends a connection whose peer begins a line and does not finish it.
	LineTimeout = 30 * time.Second
)

// Handler answers a request; for a notification the result is dropped. The context ends with the connection, with
// the caller's deadline, and when the caller gives up. Return an *Error to choose the name, a Reply to pass files.
type Handler func(ctx context.Context, r *Request) (result any, err error)

// Request is one incoming request or notification.
type Request struct {
	Method string
	Params json.RawMessage
	Conn   *Conn
	Files  []*os.File // passed descriptors; the handler owns and closes them
	Notify bool       // nobody waits for an answer
}

// Bind decodes the parameters into v, strictly: unknown members are ErrUsage.
func (r *Request) Bind(v any) error {
	if len(r.Params) == 0 || bytes.Equal(r.Params, []byte("null")) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(r.Params))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(ErrUsage, "%s: %v", r.Method, err)
	}
	return nil
}

// Reply is a result that takes descriptors along. The Conn closes Files after sending.
type Reply struct {
	Result any
	Files  []*os.File
}

// Conn is one connection. All methods may be called from any goroutine.
type Conn struct {
	rw     io.ReadWriteCloser
	first  []byte
	extra  []*os.File
	closed chan struct{}
	once   sync.Once

	wmu sync.Mutex // one line at a time

	mu      sync.Mutex // guards the fields below
	handler Handler
	next    uint64
	calls   map[uint64]chan answer
	serving map[string]context.CancelFunc
	gone    bool
}

type answer struct {
	line  message
	files []*os.File
}

// message is every line: a request has a method, an answer has a result or an error.
type message struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Timeout int64           `json:"timeout_ms,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

// NewConn returns a connection over rw; nothing happens before Run. A nil Handler answers every request
// "unknown_method". Descriptors pass if rw is a *net.UnixConn.
func NewConn(rw io.ReadWriteCloser, h Handler) *Conn {
	return &Conn{
		rw: rw, handler: h,
		closed: make(chan struct{}),
		calls:  map[uint64]chan answer{}, serving: map[string]context.CancelFunc{},
	}
}

// NewConnAfter is NewConn for a connection whose first line was already taken with ReadLine (to tell streams from
// JSON-RPC on one socket): line and files are handled as if they came first.
func NewConnAfter(rw io.ReadWriteCloser, h Handler, line []byte, files []*os.File) *Conn {
	c := NewConn(rw, h)
	c.first, c.extra = line, files
	return c
}

// SetHandler replaces the Handler for requests that come from now on.
func (c *Conn) SetHandler(h Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = h
}

// Done is closed when Run has ended or the connection was closed.
func (c *Conn) Done() <-chan struct{} { return c.closed }

// Close ends the connection; calls that wait return ErrClosed. It does not wait for Run.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.rw.Close()
		close(c.closed)
	})
	return err
}

// Peer returns who is at the other end of a unix socket.
func (c *Conn) Peer() (Cred, error) {
	nc, ok := c.rw.(net.Conn)
	if !ok {
		return Cred{}, fmt.Errorf("peer credentials: %w", errors.ErrUnsupported)
	}
	return PeerCred(nc)
}

// Run reads and answers until the peer is gone, ctx ends, or the peer breaks the rules; it returns after every
// handler has. It returns nil when the connection was closed by either side.
func (c *Conn) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var handlers sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { c.Close() })
	notes := make(chan *Request, MaxNotes)
	handlers.Go(func() {
		for r := range notes {
			if _, err := c.handle(ctx, r); err != nil {
				closeFiles(r.Files) // a handler that failed took nothing
			}
		}
	})
	err := c.read(ctx, notes, &handlers)
	close(notes)
	cancel()
	stop()
	c.Close()
	c.abandon()
	handlers.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	return err
}

// abandon fails every call that still waits.
func (c *Conn) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for id, ch := range c.calls {
		close(ch)
		delete(c.calls, id)
	}
}

func (c *Conn) read(ctx context.Context, notes chan<- *Request, handlers *sync.WaitGroup) error {
	if c.first != nil {
		line, files := c.first, c.extra
		c.first, c.extra = nil, nil
		if err := c.dispatch(ctx, line, files, notes, handlers); err != nil {
			return err
		}
	}
	lr := newLineReader(c.rw)
	defer lr.close()
	for {
		line, files, err := lr.next()
		if err != nil {
			closeFiles(files)
			return err
		}
		if err := c.dispatch(ctx, line, files, notes, handlers); err != nil {
			return err
		}
	}
}

// dispatch handles one line. It returns an error only when the connection has to end.
func (c *Conn) dispatch(ctx context.Context, line []byte, files []*os.File, notes chan<- *Request, handlers *sync.WaitGroup) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		closeFiles(files)
		return nil
	}
	if line[0] != '{' && line[0] != '[' {
		closeFiles(files)
		return ErrNotJSON
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		closeFiles(files)
		base := ErrParse
		if json.Valid(line) { // an array (batches are not spoken) or a member of the wrong type
			base = ErrInvalid
		}
		return c.write(message{ID: json.RawMessage("null"), Error: Errorf(base, "%v", err)}, nil)
	}
	switch {
	case m.Method != "" && len(m.ID) == 0:
		if m.Method == cancelMethod {
			closeFiles(files)
			c.cancel(m.Params)
			return nil
		}
		select {
		case notes <- &Request{Method: m.Method, Params: m.Params, Conn: c, Files: files, Notify: true}:
		case <-c.closed:
			closeFiles(files)
		}
		return nil
	case m.Method != "":
		return c.serve(ctx, m, files, handlers)
	case len(m.ID) > 0:
		c.resolve(m, files)
		return nil
	}
	closeFiles(files)
	return c.write(message{ID: json.RawMessage("null"), Error: ErrInvalid}, nil)
}

// serve starts the goroutine that answers one request.
func (c *Conn) serve(ctx context.Context, m message, files []*os.File, handlers *sync.WaitGroup) error {
	key := string(m.ID)
	c.mu.Lock()
	_, twice := c.serving[key]
	full := len(c.serving) >= MaxRequests
	var cancel context.CancelFunc
	if !twice && !full {
		if m.Timeout > 0 && m.Timeout < int64(365*24*time.Hour/time.Millisecond) {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(m.Timeout)*time.Millisecond)
		} else {
			ctx, cancel = context.WithCancel(ctx)
		}
		c.serving[key] = cancel
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
			err = Errorf(ErrInternal, "%s: panic: %v\n%s", r.Method, p, debug.Stack())
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
	if err != nil {
		m.Error, files = AsError(err), nil
	} else if m.Result, err = json.Marshal(result); err != nil {
		m.Error, m.Result = Errorf(ErrInternal, "encode result: %v", err), nil
	}
	if err := c.write(m, files); errors.Is(err, ErrLineTooLong) {
		c.write(message{ID: id, Error: Errorf(ErrInternal, "the result is longer than 1 MiB")}, nil)
	}
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

// Call asks method and decodes the answer into result (nil: dropped). It waits as long as ctx lets it; the deadline
// of ctx is told to the peer. An error of the peer is an *Error.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	files, err := c.call(ctx, method, params, result, nil)
	closeFiles(files)
	return err
}

// CallFile is Call with an open file passed along; f stays the caller's to close.
func (c *Conn) CallFile(ctx context.Context, method string, params, result any, f *os.File) error {
	files, err := c.call(ctx, method, params, result, []*os.File{f})
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
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fmt.Errorf("call %s: %w", method, context.DeadlineExceeded)
		}
		return nil, ctx.Err()
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

// write sends one line. A peer that does not take it within WriteTimeout loses the connection: half a line can't be
// taken back.
func (c *Conn) write(m message, files []*os.File) error {
	m.Version = "2.0"
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(line) > MaxLine {
		return ErrLineTooLong
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	timer := time.AfterFunc(WriteTimeout, func() { c.Close() })
	defer timer.Stop()
	if err := writeLine(c.rw, line, files); err != nil {
		select {
		case <-c.closed:
			return ErrClosed
		default:
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			c.Close()
		}
		return err
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
