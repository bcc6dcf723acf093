//go:build !unix

package stream

import (
	"errors"
	"syscall"
)

const canReadRaw = false

// rawReader is for systems where a descriptor can be read with one call.
func rawReader(syscall.RawConn) func() (*chunk, error) {
	return func() (*chunk, error) { return nil, errors.ErrUnsupported }
}
