//go:build !unix && !mini

package applets

import "os/exec"

// ownGroup does nothing where there are no process groups: the program alone is ended.
func ownGroup(*exec.Cmd) {}
