// Package signal is the control protocol of everything in Skywire: JSON-RPC 2.0 in both directions on one
// connection, one object a line, open descriptors passed beside a line where the kernel can.
//
// It does not decide who may call what (a Handler does, from Conn.Peer or what was said in hello), carries no bulk
// data and starts nothing by itself. SPEC.md describes the lines for other languages.
//
// Rules: every limit is a constant of this file. Requests are answered by a goroutine each, at most MaxRequests at
// once (as many answers more may be on their way out), the rest is answered "busy". Notifications reach the Handler one after the other, in order, so their
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
	"sync"
	"syscall"
	"time"
)

const (
	// MaxLine bounds one line, newline included.
	MaxLine = 1 << 20
	// MaxFiles bounds the descriptors that travel with one line.
	MaxFiles = 16
	// MaxRequests bounds the requests of one peer that are being answered at once.
	MaxRequests = 64
	// MaxNotes bounds the notifications waiting for the Handler, a long one counting for several (see noteUnit); when
	// full, reading pauses.
	MaxNotes = 256
	// MaxHeld bounds the parameters, in bytes, of the requests of one peer that are being answered at once: peers that
	// nobody trusts speak this protocol over streams. One more is answered "busy".
	MaxHeld = 4 << 20
	// noteUnit is what a notification may have in bytes for each place of MaxNotes that it takes: 4 MiB in all.
	noteUnit = 16 << 10
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

// Drop closes the descriptors that came along, for a method that takes none.
func (r *Request) Drop() {
	closeFiles(r.Files)
	r.Files = nil
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
	slots  chan struct{} // of calls under way; full: wait
	noted  chan struct{} // places taken by notifications; full: wait
	once   sync.Once

	wmu sync.Mutex // one line at a time

	mu      sync.Mutex // guards the fields below
	handler Handler
	next    uint64
	calls   map[uint64]chan answer
	serving map[string]context.CancelFunc
	open    int // requests whose answer is not out yet
	held    int // bytes of their parameters
	gone    bool
	came    uint64        // notifications given to the Handler's queue
	handled uint64        // of them, those that it has returned from
	settled chan struct{} // closed with the next one, if somebody waits
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
		closed: make(chan struct{}), slots: make(chan struct{}, MaxRequests), noted: make(chan struct{}, MaxNotes),
		calls: map[uint64]chan answer{}, serving: map[string]context.CancelFunc{},
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
			c.settle()
			for range noteCost(r) {
				<-c.noted
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
	if ended(err) {
		err = nil
	}
	return err
}

// Handled waits until the Handler has returned from every notification that came until now, or ctx ends. Call does not wait for
// those that came before its answer: who asks for notifications and closes the connection after the answer calls Handled first.
// A Handler must not call it.
func (c *Conn) Handled(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for until := c.came; c.handled < until; {
		if c.settled == nil {
			c.settled = make(chan struct{})
		}
		next := c.settled
		c.mu.Unlock()
		var err error
		select {
		case <-next:
		case <-ctx.Done():
			err = ctx.Err()
		}
		c.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// settle counts a notification that the Handler has returned from.
func (c *Conn) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handled++; c.settled != nil {
		close(c.settled)
		c.settled = nil
	}
}

// ended reports whether err says that one side closed the connection, or died.
func ended(err error) bool {
	for _, e := range []error{io.EOF, net.ErrClosed, os.ErrClosed, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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
		r := &Request{Method: m.Method, Params: m.Params, Conn: c, Files: files, Notify: true}
		for range noteCost(r) {
			select {
			case c.noted <- struct{}{}:
			case <-c.closed:
				closeFiles(files)
				return ErrClosed
			}
		}
		c.mu.Lock()
		c.came++
		c.mu.Unlock()
		notes <- r // there is room: every note in it has taken a place
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

// noteCost is how many places of MaxNotes a notification takes.
func noteCost(r *Request) int { return 1 + len(r.Params)/noteUnit }

// write sends one line. A peer that does not take it within WriteTimeout loses the connection: half a line can't be
// taken back.
func (c *Conn) write(m message, files []*os.File) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeLocked(m, files)
}

// writeLocked is write with wmu held. Lines are encoded here, so that of all that wait for a slow reader one is bytes.
func (c *Conn) writeLocked(m message, files []*os.File) error {
	m.Version = "2.0"
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(line) > MaxLine {
		return ErrLineTooLong
	}
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
