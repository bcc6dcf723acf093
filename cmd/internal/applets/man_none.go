//go:build !web && (mips || mipsle || mini)

package applets

import (
	"context"

	"skywire/cmd/internal/applet"
)

// manApplet stands where flash is small: manual pages are made and read on the box that one sits at.
func manApplet() applet.Applet {
	return applet.Applet{
		Name: "man", Summary: "not in this small build", Usage: "man DIR",
		Run: func(_ context.Context, e *applet.Env) int {
			e.Talk("man", "not in this build of skywire for small flash: every verb has --help; a full build writes the pages")
			return applet.NotFound
		},
	}
}
