//go:build !linux

package proc

import (
	"errors"
	"fmt"
	"os"
)

// Spool is not supported here: no system call moves output so that a kill can't divide it.
type Spool struct{}

// OpenSpool returns ErrUnsupported here.
func OpenSpool(path string) (*Spool, error) {
	return nil, fmt.Errorf("spool %s: %w", path, errors.ErrUnsupported)
}

// InRAM is not known here.
func InRAM(string) bool { return false }

// Size is 0 here.
func (s *Spool) Size() int64 { return 0 }

// Fill is not supported here.
func (s *Spool) Fill(*os.File) (int, error) { return 0, errors.ErrUnsupported }

// ReadAt is not supported here.
func (s *Spool) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// Forget does nothing here.
func (s *Spool) Forget(int64) {}

// Close does nothing here.
func (s *Spool) Close() error { return nil }
