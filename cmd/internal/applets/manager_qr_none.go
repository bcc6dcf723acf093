//go:build (mips || mipsle) && !mini

package applets

import (
	"errors"
	"fmt"
	"io"
)

// printQR says what this build lacks.
func printQR(io.Writer, string) error {
	return fmt.Errorf("this build draws no QR codes, to fit the flash of small routers; give the text to any program that does: %w", errors.ErrUnsupported)
}
