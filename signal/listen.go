package signal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// MaxConns bounds the connections of one Serve; one more is closed at once.
const MaxConns = 256

// placeLook is how often a listener looks whether its file is still where programs dial it.
const placeLook = 5 * time.Second

// maxPath is what fits into a sockaddr_un on Linux, less the terminating zero.
const maxPath = 107

// Cred is who is at the other end of a unix socket.
type Cred struct {
	PID      int
	UID, GID uint32
}

// Dial connects to the unix socket at path. Run is started and owned by the Conn: Close ends it; ctx bounds only the
// dialling. h answers what the other side asks, nil for nothing.
func Dial(ctx context.Context, path string, h Handler) (*Conn, error) {
	if err := trustedPlace(filepath.Dir(path), os.Geteuid()); err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c := NewConn(nc, h)
	go c.Run(context.WithoutCancel(ctx)) // ends with Close or with the peer
	return c, nil
}

// Listen opens a unix socket with exactly this mode, never reachable with a wider one in between, in place of a dead
// one left by a killed process. It returns ErrInUse when a living process listens there. Closing it removes the file.
//
// A folder under /run may be emptied under a program, and then nobody finds it any more: while Accept waits, the
// listener opens a new socket where its file is gone.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	u, made, err := bind(path, mode)
	if err != nil {
		return nil, err
	}
	return &listener{path: path, mode: mode, look: placeLook, unix: u, made: made}, nil
}

// bind opens the socket, and returns it with what its file is.
func bind(path string, mode os.FileMode) (*net.UnixListener, os.FileInfo, error) {
	if len(path) > maxPath {
		return nil, nil, fmt.Errorf("listen %s: path longer than %d bytes, choose a shorter --run directory", path, maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	if err := trustedPlace(filepath.Dir(path), os.Geteuid()); err != nil {
		return nil, nil, fmt.Errorf("listen %s: %w", path, err)
	}
	unlock, err := lockDir(path)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := removeDead(path); err != nil {
		return nil, nil, err
	}
	// The umask is the process's and not ours to change: bind where nobody else can reach, then move.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	var made os.FileInfo
	if err = os.Chmod(tmp, mode); err == nil {
		if made, err = os.Lstat(tmp); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, made, nil
}

// Relisten returns the Listener of path for one that is open already: handed over by the program before in this process.
func Relisten(l net.Listener, path string) (net.Listener, error) {
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("listen %s: handed over is a %T", path, l)
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	u.SetUnlinkOnClose(false)
	return &listener{path: path, mode: made.Mode().Perm(), look: placeLook, unix: u, made: made}, nil
}

// removeDead removes a socket nobody listens on.
func removeDead(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen %s: a file that is no socket is in the way", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		lives := listenerLives(c)
		c.Close()
		if lives {
			return fmt.Errorf("listen %s: %w", path, ErrInUse)
		}
	}
	return os.Remove(path)
}

// listener removes its own file on Close, not one that another process has put in its place.
type listener struct {
	path string
	mode os.FileMode
	look time.Duration // how often the file is looked for

	mu     sync.Mutex
	unix   *net.UnixListener
	made   os.FileInfo // the file as it was made
	closed bool
}

// Accept waits for the next connection, and looks after the file meanwhile.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	u := l.unix
	l.mu.Unlock()
	for {
		now := time.Now()
		rest := now.Truncate(l.look).Add(l.look).Sub(now.Round(0)) // all listeners of a box look at once: one wake-up
		if err := u.SetDeadline(now.Add(rest)); err != nil {
			return nil, err
		}
		c, err := u.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		u = l.inPlace() // only now: who has dialled the old one is not dropped
	}
}

// inPlace returns the socket to listen on: a new one where the file of the present one is gone. Where that fails, another
// look follows.
func (l *listener) inPlace() *net.UnixListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.ours() {
		return l.unix
	}
	if u, made, err := bind(l.path, l.mode); err == nil {
		l.unix.Close()
		l.unix, l.made = u, made
	}
	return l.unix
}

// ours tells whether the file at the path is the one that we made.
func (l *listener) ours() bool {
	st, err := os.Lstat(l.path)
	return err == nil && os.SameFile(st, l.made)
}

func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && l.ours() {
		os.Remove(l.path)
	}
	l.closed = true
	return l.unix.Close()
}

// SyscallConn implements syscall.Conn: the socket may be handed to the next program in this process.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unix.SyscallConn()
}

// Addr returns the path that clients dial.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Serve accepts connections until ctx ends and closes l. accept returns the Handler for a new connection (which it
// can judge by Conn.Peer), or nil to refuse it. Serve returns after all connections have ended.
func Serve(ctx context.Context, l net.Listener, accept func(*Conn) Handler) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close() // also waits for the one below to have removed the file
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, MaxConns)
	for {
		nc, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if retry(ctx, err) {
				continue
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			nc.Close() // a flood costs its sender, not us
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			c := NewConn(nc, nil)
			h := accept(c)
			if h == nil {
				c.Close()
				return
			}
			c.SetHandler(h)
			c.Run(ctx)
		})
	}
}

// retry waits a moment after an error that passes (no free descriptor).
func retry(ctx context.Context, err error) bool {
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) {
		return false
	}
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return true
	}
}
