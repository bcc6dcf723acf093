//go:build mini

package applets

import (
	"skywire/cmd/internal/applet"
	"skywire/supervisor/config"
)

// All is the table of a small build: what a box needs to be a member of a mesh.
func All() []applet.Applet {
	return []applet.Applet{nodeApplet(), vpnApplet(), socksApplet(), viscriptApplet()}
}

// Tools are the words of the skywire command itself that are no daemons.
func Tools() []applet.Applet {
	return []applet.Applet{doctorApplet(), absent("manager"), absent("apptracker"), absent("completion")}
}

// checkServers passes the sections of the applets that are not here: nothing reads them.
func checkServers(*config.File) error { return nil }
