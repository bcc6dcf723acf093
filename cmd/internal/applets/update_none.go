//go:build !web && (mips || mipsle || mini)

package applets

import (
	"context"

	"skywire/cmd/internal/applet"
)

// updateApplet is not in the builds for small routers: it costs them 210 kB, two programs of 14 MB do not fit their flash, and what is
// on them came by a package of OpenWrt, whose package manager replaces it.
func updateApplet() applet.Applet {
	return applet.Applet{
		Name: updateName, Summary: "not in this small build: upgrade the package", Usage: updateName,
		Run: func(_ context.Context, e *applet.Env) int {
			e.Talk(updateName, "not in this small build of skywire; upgrade its package: opkg install FILE, or apk add FILE")
			return applet.NotFound
		},
	}
}
