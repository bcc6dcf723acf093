package update

import "context"

// PackageOf names the package manager that has put the program there, if one says so: it would put its own back, and its checks would
// find a stranger's file.
func PackageOf(ctx context.Context, program string) string {
	for _, ask := range [][]string{
		{"dpkg-query", "-S"}, {"rpm", "-qf"}, {"pacman", "-Qqo"}, {"apk", "info", "--who-owns"}, {"opkg", "search"},
	} {
		if Find(ask[0]) == "" {
			continue
		}
		if out, err := Run(ctx, ask[0], append(ask[1:], program)...); err == nil && out != "" {
			return ask[0]
		}
	}
	return ""
}
