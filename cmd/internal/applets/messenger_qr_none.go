//go:build !mini && (mips || mipsle) && !issuer

package applets

import (
	"errors"
	"io"

	"skywire/cmd/internal/applet"
)

// printQR says that a router's build draws none.
func printQR(io.Writer, string) error {
	return applet.WithCode(applet.Failed, errors.New("this small build draws no QR codes: leave --qr away"))
}
