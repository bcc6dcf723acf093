//go:build !web && (mips || mipsle || mini)

package applets

import (
	"log/slog"

	"skywire/cmd/internal/applet"
	"skywire/supervisor"
)

// webPage is none in builds for small flash: net/http would be a tenth of them. Such a box is managed from another one by
// viscript -n, by its page too.
func webPage(*applet.Flags, bool, *slog.Logger) supervisor.Page { return nil }
