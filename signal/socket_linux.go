package signal

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// readFiles reads into b and returns the descriptors that came along, close-on-exec.
func readFiles(c *net.UnixConn, b []byte) (int, []*os.File, error) {
	oob := make([]byte, syscall.CmsgSpace(4*MaxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err == nil && n == 0 && oobn == 0 {
		return 0, nil, io.EOF // ReadMsgUnix has no error for the end of a stream
	}
	if oobn == 0 {
		return n, nil, err
	}
	var files []*os.File
	msgs, perr := syscall.ParseSocketControlMessage(oob[:oobn])
	for i := range msgs {
		fds, ferr := syscall.ParseUnixRights(&msgs[i])
		if ferr != nil {
			continue // credentials or the like: not asked for
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if err == nil && perr != nil {
		err = fmt.Errorf("signal: control message: %w", perr)
	}
	if err == nil && flags&syscall.MSG_CTRUNC != 0 {
		err = fmt.Errorf("signal: more than %d descriptors with one line, or no free descriptor", MaxFiles)
	}
	if err != nil {
		closeFiles(files)
		return n, nil, err
	}
	return n, files, nil
}

// writeFiles sends as much of b as fits in one message, with the descriptors.
func writeFiles(c *net.UnixConn, b []byte, files []*os.File) (int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		rc, err := f.SyscallConn() // not Fd(): that would make the file blocking
		if err != nil {
			return 0, fmt.Errorf("pass %s: %w", f.Name(), err)
		}
		// The number is used after Control returns; KeepAlive below holds the file open until it is sent.
		if err := rc.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return 0, fmt.Errorf("pass %s: %w", f.Name(), err)
		}
	}
	n, _, err := c.WriteMsgUnix(b, syscall.UnixRights(fds...), nil)
	runtime.KeepAlive(files)
	return n, err
}

// peekLine waits for data and says how many bytes to take: up to and including the newline if one is in sight,
// else all that is there, at most limit.
func peekLine(c *net.UnixConn, limit int) (n int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, limit)
	var got int
	var perr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			got, _, perr = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
			if perr != syscall.EINTR {
				return perr != syscall.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case perr != nil:
		return 0, os.NewSyscallError("recvfrom", perr)
	case got == 0:
		return 0, io.EOF
	}
	if i := bytes.IndexByte(buf[:got], '\n'); i >= 0 {
		return i + 1, nil
	}
	return got, nil
}

// PeerCred returns the process, user and group at the other end of a unix socket, as they were when it connected.
func PeerCred(c net.Conn) (Cred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Cred{}, fmt.Errorf("peer credentials of %T: %w", c, syscall.ENOTSUP)
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return Cred{}, err
	}
	var uc *syscall.Ucred
	var uerr error
	err = rc.Control(func(fd uintptr) {
		uc, uerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil {
		return Cred{}, err
	}
	if uerr != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", uerr)
	}
	return Cred{PID: int(uc.Pid), UID: uc.Uid, GID: uc.Gid}, nil
}

// listenerLives reports whether the process that opened the socket at the other end still is there. When it was killed in
// the middle of starting a program, the child has the socket open for a moment, and would hold up whoever follows.
func listenerLives(c net.Conn) bool {
	cred, err := PeerCred(c)
	return err != nil || cred.PID <= 0 || syscall.Kill(cred.PID, 0) != syscall.ESRCH
}

// Pair returns two connected unix sockets, one to keep and one to give to a child as SIGNAL_FD.
func Pair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	child := os.NewFile(uintptr(fds[1]), "signal")
	mine := os.NewFile(uintptr(fds[0]), "signal")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), child, nil
}

// trustedPlace refuses a directory that is, or lies in, one that another user has made where anybody may, as in /tmp:
// the default of who has no run directory of the system's. Root has one, and may name any.
func trustedPlace(dir string, uid int) error {
	if uid == 0 {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		parent, err := os.Stat(up)
		if err != nil || parent.Mode()&0o002 == 0 {
			continue // not there, or not ours to look at: using it will tell
		}
		st, err := os.Lstat(dir)
		if err != nil {
			continue
		}
		if owner, ok := st.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != uid {
			return fmt.Errorf("%s: %w (uid %d)", dir, ErrPlace, owner.Uid)
		}
	}
	return nil
}

// lockPatience is how long lockDir waits: whoever may read the directory may hold the lock for ever, which must keep
// nobody from starting. Without it, only two starts in the same moment can do each other harm.
const lockPatience = 2 * time.Second

// lockDir keeps two processes from replacing each other's dead socket at once; it leaves no file behind.
func lockDir(path string) (func(), error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(lockPatience / 100)
	defer retry.Stop()
	for end := time.Now().Add(lockPatience); ; <-retry.C {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || err == syscall.EWOULDBLOCK && time.Now().After(end) {
			return func() { d.Close() }, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", d.Name(), err)
		}
	}
}
