//go:build !mini && (issuer || !(mips || mipsle))

package applets

import (
	"fmt"
	"io"

	"rsc.io/qr"
)

// printQR draws text as a QR code of half blocks, dark modules dark on a light ground whatever the terminal's colours are.
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("draw QR code: %w", err)
	}
	const quiet = 2 // modules around it; phones are content with half of what the standard wants
	black := func(x, y int) bool {
		return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y)
	}
	for y := -quiet; y < code.Size+quiet; y += 2 {
		line := "\x1b[38;5;231;48;5;16m" // white on black: a block is a light module
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := black(x, y), black(x, y+1); {
			case top && bottom:
				line += " "
			case top:
				line += "▄"
			case bottom:
				line += "▀"
			default:
				line += "█"
			}
		}
		if _, err := fmt.Fprintln(w, line+"\x1b[0m"); err != nil {
			return err
		}
	}
	return nil
}
