//go:build !unix

package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Handing is not supported here.
func Handing([]syscall.Conn, func(fds []int) error) error {
	return fmt.Errorf("exec: %w", errors.ErrUnsupported)
}

// Handed is not supported here.
func Handed(int, string) *os.File { return nil }
