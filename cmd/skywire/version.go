package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"skywire/cmd/internal/applet"
)

// version is set by the linker (Makefile); without it, the build's own information speaks.
var version string

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func currentVersion() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
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

func printVersion(e *applet.Env) int {
	f := applet.NewFlags(e, "skywire --version", "[--json]", "Prints the version, the toolchain and the platform.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	v := currentVersion()
	if f.JSON {
		return f.Exit(e.PrintJSON(v))
	}
	fmt.Fprintf(e.Stdout, "skywire %s", v.Version)
	if v.Commit != "" {
		fmt.Fprintf(e.Stdout, " (%s)", v.Commit)
	}
	fmt.Fprintf(e.Stdout, " %s %s\n", v.Go, v.Platform)
	return applet.OK
}
