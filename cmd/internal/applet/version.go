package applet

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker (Makefile); without it, the build's own information speaks.
var version string

// Build says what this program was made from.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Version tells the build of this program.
func Version() Build {
	v := Build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = b.Main.Version
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}
