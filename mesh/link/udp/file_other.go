//go:build !linux

package udp

import (
	"errors"
	"os"
)

// File is not to be had here: nothing on these systems marks sockets.
func (s *Socket) File() (*os.File, error) { return nil, errors.ErrUnsupported }
