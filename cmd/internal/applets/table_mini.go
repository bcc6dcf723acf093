//go:build mini

package applets

import (
	"context"

	"skywire/cmd/internal/applet"
)

// All is the table of a small build: what a box needs to be a member of a mesh.
func All() []applet.Applet {
	return []applet.Applet{nodeApplet(), vpnApplet(), socksApplet(), viscriptApplet()}
}

// Tools are the words of the skywire command itself that are no daemons.
func Tools() []applet.Applet {
	return []applet.Applet{doctorApplet(), simApplet(), updateApplet(), absent("manager"), absent("apptracker"), absent("messenger"), absent("completion"), manApplet()}
}

// serverSections are none: nothing here reads those of the applets that are not here.
func serverSections() map[string]any { return map[string]any{} }

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
