package main

import (
	"fmt"

	"skywire/cmd/internal/applet"
)

func printVersion(e *applet.Env) int {
	f := applet.NewFlags(e, "skywire --version", "[--json]", "Prints the version, the toolchain and the platform.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	v := applet.Version()
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
