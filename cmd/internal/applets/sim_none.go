//go:build !web && (mips || mipsle || mini)

package applets

import (
	"context"

	"skywire/cmd/internal/applet"
)

// simApplet stands in builds for small routers: a mesh on virtual time belongs on a desk.
func simApplet() applet.Applet {
	return applet.Applet{
		Name: "sim", Summary: "not in this build", Usage: "sim",
		Run: func(_ context.Context, e *applet.Env) int {
			e.Talk("sim", "not in this build of skywire, which is for small routers: run it on another box")
			return applet.NotFound
		},
	}
}
