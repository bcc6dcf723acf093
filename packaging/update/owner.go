package update

import (
	"bytes"
	"context"
	"os/exec"
)

// PackageOf names the package manager that has put the program there, if one says so: it would put its own back, and its checks would
// find a stranger's file.
func PackageOf(ctx context.Context, program string) string {
	for _, ask := range [][]string{
		{"dpkg-query", "-S"}, {"rpm", "-qf"}, {"pacman", "-Qqo"}, {"apk", "info", "--who-owns"}, {"opkg", "search"},
	} {
		if Find(ask[0]) == "" {
			continue
		}
		out, err := exec.CommandContext(ctx, ask[0], append(ask[1:], program)...).Output()
		if err == nil && len(bytes.TrimSpace(out)) > 0 { // opkg ends with 0 also when it knows nothing
			return ask[0]
		}
	}
	return ""
}
