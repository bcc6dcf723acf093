// Package applets holds the applets of the binary, one file each: flags and a config section become the Config of a
// package, New makes it, Run runs it. It holds no logic of its own: an applet that needs any has it in its package.
// table_full.go and table_mini.go are the tables; an applet that is not in the one built is not in the binary.
package applets
