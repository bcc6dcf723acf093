//go:build !linux

package emulator

import (
	"errors"
	"fmt"
	"os"
)

// OpenTAP is there on Linux only.
func OpenTAP(string) (*os.File, error) {
	return nil, fmt.Errorf("create TAP: %w", errors.ErrUnsupported)
}

func write(f *os.File, frame []byte) error {
	if _, err := f.Write(frame); err != nil {
		return fmt.Errorf("emulator: write: %w", err)
	}
	return nil
}
