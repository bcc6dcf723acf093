package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/term"

	"skywire/signal"
	"skywire/supervisor"
)

// errDetached is returned by keys when Ctrl-Z was pressed.
var errDetached = errors.New("detached")

// attached binds input and output to app id until it ends (its exit status is returned), Ctrl-Z is pressed or ctx
// ends. Whole lines are sent, as in 2017; Ctrl-C is sent as SIGINT, Ctrl-D ends the app's input.
func (s *session) attached(ctx context.Context, started supervisor.Started, detach byte) error {
	id := started.ID
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ref := strconv.FormatUint(id, 10)
	conn, notes := s.conn, s.notes
	detached := make(chan struct{})
	typed := make(chan struct{})
	out, errs := s.out, s.errs
	switch {
	case s.input == nil: // a script: its lines are not the app's
		close(typed)
		conn.Call(ctx, "viscript.input", obj{"id": ref}, nil)
	case s.input.tty != nil && started.TTY:
		restore, err := s.raw()
		if err != nil {
			return err
		}
		defer restore()
		out, errs = s.c.Stdout, crlf{s.c.Stdout}
		go func() {
			defer close(typed)
			if s.typeKeys(ctx, ref, conn, detach) {
				close(detached)
			}
		}()
		go s.followSize(ctx, ref, conn) // ends with ctx
	case s.input.tty != nil:
		t, restore, err := s.terminal(ctx, ref, conn)
		if err != nil {
			return err
		}
		defer restore()
		out, errs = t, t
		go func() {
			defer close(typed)
			if s.typeLines(ctx, t, ref, conn) {
				close(detached)
			}
		}()
	default:
		go func() {
			defer close(typed)
			s.copyInput(ctx, ref, conn)
		}()
	}
	defer func() {
		cancel()
		<-typed
	}()
	for {
		select {
		case r := <-notes:
			var o supervisor.Output
			if r.Method != "viscript.output" || json.Unmarshal(r.Params, &o) != nil || o.ID != id {
				continue
			}
			if o.Ended != nil {
				return s.endOf(errs, o.Ended)
			}
			w := out
			if o.Stream == "stderr" {
				w = errs
			}
			w.Write(o.Data)
		case <-detached:
			conn.Close() // ends the subscription; the next verb connects anew
			fmt.Fprintf(errs, "viscript: detached from %d; it goes on. Back with: attach %d\n", id, id)
			return nil
		case <-conn.Done():
			return signal.Errorf(signal.ErrNotRunning, "viscript ended meanwhile")
		case <-ctx.Done():
			conn.Close()
			return nil
		}
	}
}

func (s *session) endOf(errs io.Writer, it *supervisor.Item) error {
	reason := ""
	if it.ExitReason != nil && *it.ExitReason != string(it.State) {
		reason = ": " + *it.ExitReason
	}
	fmt.Fprintf(errs, "viscript: %s#%d %s%s\n", it.Name, it.ID, it.State, reason)
	switch {
	case it.ExitCode != nil && *it.ExitCode != 0:
		return exitError{min(max(*it.ExitCode, 1), 255)}
	case it.ExitCode == nil && it.State == supervisor.Failed:
		return exitError{1}
	}
	return nil
}

// copyInput sends all of a file or pipe.
func (s *session) copyInput(ctx context.Context, ref string, conn *signal.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.input.read(ctx, buf)
		if n > 0 && conn.Call(ctx, "viscript.input", obj{"id": ref, "data": buf[:n]}, nil) != nil {
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				conn.Call(ctx, "viscript.input", obj{"id": ref}, nil)
			}
			return
		}
	}
}

// terminal puts the terminal into raw mode with a line editor on it.
func (s *session) terminal(ctx context.Context, ref string, conn *signal.Conn) (*term.Terminal, func(), error) {
	fd := int(s.input.tty.Fd())
	k := &keys{ctx: ctx, in: s.input, out: s.c.Stdout, interrupt: func() {
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn.Call(c, "viscript.signal", obj{"id": ref, "signal": "INT"}, nil)
	}}
	restore, err := s.raw()
	if err != nil {
		return nil, nil, err
	}
	t := term.NewTerminal(k, "")
	if w, h, err := term.GetSize(fd); err == nil && w > 0 && h > 0 {
		t.SetSize(w, h)
	}
	return t, restore, nil
}

// raw has the terminal give keys as they are typed.
func (s *session) raw() (restore func(), err error) {
	if s.inShell { // the shell has done so already
		return func() {}, nil
	}
	fd := int(s.input.tty.Fd())
	old, err := term.MakeRaw(fd)
	return func() { term.Restore(fd, old) }, err
}

// crlf is for what viscript itself says to a terminal that is raw.
type crlf struct{ w io.Writer }

func (c crlf) Write(b []byte) (int, error) {
	if _, err := c.w.Write(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// typeKeys sends what is typed to an app with a terminal of its own until the key that detaches, which it reports.
func (s *session) typeKeys(ctx context.Context, ref string, conn *signal.Conn, detach byte) bool {
	buf := make([]byte, 4096)
	for {
		n, err := s.input.read(ctx, buf)
		i := bytes.IndexByte(buf[:n], detach)
		if i >= 0 { // what follows is for the shell
			s.input.rest = append(bytes.Clone(buf[i+1:n]), s.input.rest...)
			n = i
		}
		if n > 0 && conn.Call(ctx, "viscript.input", obj{"id": ref, "data": buf[:n]}, nil) != nil && ctx.Err() != nil {
			return false
		}
		if i >= 0 || err != nil {
			return i >= 0
		}
	}
}

// sizeEvery is how often the size of the terminal is looked at: its signal belongs to the process.
const sizeEvery = 300 * time.Millisecond

// followSize tells the app how large the terminal is, at first and when that changes.
func (s *session) followSize(ctx context.Context, ref string, conn *signal.Conn) {
	t := time.NewTicker(sizeEvery)
	defer t.Stop()
	columns, rows := 0, 0
	for {
		if w, h, err := term.GetSize(int(s.input.tty.Fd())); err == nil && (w != columns || h != rows) && w > 0 && h > 0 {
			columns, rows = w, h
			conn.Call(ctx, "viscript.resize", obj{"id": ref, "columns": min(w, 1<<15), "rows": min(h, 1<<15)}, nil)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// typeLines sends lines until Ctrl-Z, which it reports.
func (s *session) typeLines(ctx context.Context, t *term.Terminal, ref string, conn *signal.Conn) bool {
	for {
		line, err := t.ReadLine()
		if err == nil || errors.Is(err, term.ErrPasteIndicator) {
			if conn.Call(ctx, "viscript.input", obj{"id": ref, "data": []byte(line + "\n")}, nil) != nil {
				err = ctx.Err()
			}
		}
		switch {
		case errors.Is(err, errDetached):
			return true
		case ctx.Err() != nil:
			return false
		case errors.Is(err, io.EOF): // Ctrl-D: the end of the input; keys still count
			if conn.Call(ctx, "viscript.input", obj{"id": ref}, nil) != nil && ctx.Err() != nil {
				return false
			}
			select {
			case <-ctx.Done():
				return false
			case <-s.input.over():
				return false
			default:
			}
		}
	}
}

// keys is the terminal's side of the line editor: it takes out the keys that are not for the line.
type keys struct {
	ctx       context.Context
	in        *input
	out       io.Writer
	interrupt func()
	held      error
}

// Read gives the editor what was typed before a special key, and then acts on that.
func (k *keys) Read(b []byte) (int, error) {
	if k.held != nil {
		err := k.held
		k.held = nil
		return 0, err
	}
	for {
		n, err := k.in.readKeys(k.ctx, b)
		if err != nil {
			return 0, err
		}
		if i := bytes.IndexByte(b[:n], ctrlZ); i >= 0 { // what follows is for the shell
			k.in.rest = append(bytes.Clone(b[i+1:n]), k.in.rest...)
			if i == 0 {
				return 0, errDetached
			}
			k.held = errDetached
			return i, nil
		}
		if i := bytes.IndexByte(b[:n], ctrlC); i >= 0 {
			k.interrupt()
			n = copy(b[i:], b[i+1:n]) + i
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Write prints.
func (k *keys) Write(b []byte) (int, error) { return k.out.Write(b) }
