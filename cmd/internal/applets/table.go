// Package applets holds the applets of the binary, one file each: flags and a config section become the Config of a
// package, New makes it, Run runs it. It holds no logic of its own: an applet that needs any has it in its package.
// table_full.go and table_mini.go are the tables; an applet that is not in the one built is not in the binary.
package applets

import (
	"context"

	"skywire/cmd/internal/applet"
)

// absent stands in a small build for an applet that is not in it: who calls it hears so, not that there is no such word.
func absent(name string) applet.Applet {
	return applet.Applet{
		Name: name, Summary: "not in this small build", Usage: name,
		Run: func(_ context.Context, e *applet.Env) int {
			e.Talk(name, "not in this small build of skywire (built with the tag mini): take the full one")
			return applet.NotFound
		},
	}
}
