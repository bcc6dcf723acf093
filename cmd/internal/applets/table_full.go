//go:build !mini

package applets

import (
	"skywire/cmd/internal/applet"
	"skywire/mesh/tracker"
)

// All is the table of applets, in the order of --list; each has a link name of its own.
func All() []applet.Applet {
	return []applet.Applet{nodeApplet(), managerApplet(), vpnApplet(), socksApplet(), apptrackerApplet(), messengerApplet(), viscriptApplet()}
}

// Tools are the words of the skywire command itself that are no daemons: they have no link names.
func Tools() []applet.Applet {
	return []applet.Applet{doctorApplet(), simApplet(), updateApplet(), completionApplet(), manApplet()}
}

// serverSections are the sections of the applets that a small build does not have.
func serverSections() map[string]any {
	return map[string]any{managerName: &managerConfig{}, tracker.ServiceName: &apptrackerConfig{}, messengerName: &messengerConfig{}}
}
