package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// input reads what is typed. One goroutine reads for the whole session, because a read of a terminal can't be given
// up: it ends with the input itself. Whoever wants the bytes reads from here and can be interrupted.
type input struct {
	r      io.Reader
	tty    *os.File // nil: no terminal
	begin  sync.Once
	chunks chan []byte // closed at the end
	ended  chan struct{}
	rest   []byte

	mu        sync.Mutex // guards the fields below
	onControl func()     // called for Ctrl-C instead of keeping it
}

func newInput(r io.Reader) *input {
	in := &input{r: r, chunks: make(chan []byte, 64), ended: make(chan struct{})}
	if f, ok := r.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		in.tty = f
	}
	return in
}

// pump starts reading; before anybody asks nothing is taken from the input.
func (in *input) pump() {
	in.begin.Do(func() {
		go func() {
			defer close(in.ended)
			defer close(in.chunks)
			for {
				buf := make([]byte, 4096)
				n, err := in.r.Read(buf)
				if n > 0 && !in.control(buf[:n]) {
					in.chunks <- buf[:n]
				}
				if err != nil {
					return
				}
			}
		}()
	})
}

// control reports whether b was a Ctrl-C for somebody who waits for it.
func (in *input) control(b []byte) bool {
	in.mu.Lock()
	f := in.onControl
	in.mu.Unlock()
	if f == nil || len(b) != 1 || b[0] != ctrlC {
		return false
	}
	f()
	return true
}

// catch has f called on Ctrl-C until release.
func (in *input) catch(f func()) (release func()) {
	in.pump()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.onControl = f
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.onControl = nil
	}
}

// read returns some bytes; io.EOF at the end, the error of ctx when that ends first.
func (in *input) read(ctx context.Context, b []byte) (int, error) {
	in.pump()
	if len(in.rest) == 0 {
		select {
		case c, ok := <-in.chunks:
			if !ok {
				return 0, io.EOF
			}
			in.rest = c
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	n := copy(b, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// readKeys is read for a line editor: it gives at most one line, because what comes behind it may be for another editor
// (that of an app attached by the line).
func (in *input) readKeys(ctx context.Context, b []byte) (int, error) {
	n, err := in.read(ctx, b)
	if i := bytes.IndexAny(b[:n], "\r\n"); i >= 0 && i+1 < n {
		in.rest = append(bytes.Clone(b[i+1:n]), in.rest...)
		n = i + 1
	}
	return n, err
}

const (
	ctrlC = 0x03
	ctrlD = 0x04
	ctrlU = 0x15 // in the line editor: empties the line
	ctrlZ = 0x1a
)

// over is closed when the input has ended.
func (in *input) over() <-chan struct{} { return in.ended }
