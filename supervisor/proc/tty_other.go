//go:build !linux

package proc

import (
	"errors"
	"fmt"
	"os"
)

// OpenTTY is not supported here.
func OpenTTY() (ours, theirs *os.File, err error) {
	return nil, nil, fmt.Errorf("terminals of apps: %w", errors.ErrUnsupported)
}

// ResizeTTY is not supported here.
func ResizeTTY(*os.File, uint16, uint16) error { return errors.ErrUnsupported }
