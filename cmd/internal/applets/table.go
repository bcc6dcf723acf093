// Package applets holds the applets of the binary, one file each: flags and a config section become the Config of a
// package, New makes it, Run runs it. It holds no logic of its own: an applet that needs any has it in its package.
// This file is the table; an applet that is not in it is not in the binary.
package applets

import "skywire/cmd/internal/applet"

// All is the table of applets, in the order of --list; each has a link name of its own.
func All() []applet.Applet {
	return []applet.Applet{nodeApplet(), managerApplet(), vpnApplet(), socksApplet(), apptrackerApplet(), viscriptApplet()}
}

// Tools are the words of the skywire command itself that are no daemons: they have no link names.
func Tools() []applet.Applet {
	return []applet.Applet{doctorApplet(), completionApplet()}
}
