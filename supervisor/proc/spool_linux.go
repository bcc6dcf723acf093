package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fillMost is what one Fill takes at most: what a pipe holds.
const fillMost = 64 << 10

// ramfsMagic is the type of ramfs, the root of some small systems; x/sys/unix has no name for it.
const ramfsMagic = 0x858458f6

// Spool is a file in RAM that output goes through on its way from a Pipe. The kernel moves bytes from the pipe to the
// end of the file in one call that a kill of this process can't divide: they are in the one or in the other, so the next
// run knows by the size of the file what was taken. One goroutine at a time.
type Spool struct {
	f    *os.File
	size int64
	gone int64 // bytes before this take no memory
}

// OpenSpool opens the spool at path, a new one if there is none. It returns ErrUnsupported where the folder is not in
// RAM, since flash would wear out, and where RAM once taken is never given back.
func OpenSpool(path string) (*Spool, error) {
	if !InRAM(filepath.Dir(path)) {
		return nil, fmt.Errorf("spool %s: not in RAM: %w", path, errors.ErrUnsupported)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	sp := &Spool{f: f, size: st.Size()}
	if err := sp.punch(sp.size, fillMost); err != nil { // ramfs: what came through would never be given back
		f.Close()
		return nil, fmt.Errorf("spool %s: %w", path, errors.ErrUnsupported)
	}
	return sp, nil
}

// InRAM reports whether a folder lies on a file system that writes nothing to a disk.
func InRAM(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	kind := uint32(st.Type)
	return kind == unix.TMPFS_MAGIC || kind == ramfsMagic
}

// Size is how many bytes have ever come through.
func (s *Spool) Size() int64 { return s.size }

// Fill waits for output in r and moves it to the end of the spool; 0 bytes without an error are the end of r.
func (s *Spool) Fill(r *os.File) (int, error) {
	rc, err := r.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	var serr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			to := s.size
			m, err := unix.Splice(int(fd), nil, int(s.f.Fd()), &to, fillMost, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			n, serr = int(m), err // m is as wide as the machine
			if !errors.Is(serr, unix.EINTR) {
				return !errors.Is(serr, unix.EAGAIN)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, os.NewSyscallError("splice", serr)
	}
	s.size += int64(n)
	return n, nil
}

// ReadAt reads what came through and was not forgotten.
func (s *Spool) ReadAt(b []byte, at int64) (int, error) { return s.f.ReadAt(b, at) }

// Forget gives the memory of all before upto back, in large pieces.
func (s *Spool) Forget(upto int64) {
	if upto-s.gone < fillMost {
		return
	}
	if s.punch(s.gone, upto-s.gone) == nil {
		s.gone = upto &^ 4095 // the rest of a page stays
	}
}

func (s *Spool) punch(from, length int64) error {
	return unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, length)
}

// Close closes the file, which stays.
func (s *Spool) Close() error { return s.f.Close() }
