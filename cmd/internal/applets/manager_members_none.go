//go:build !mini && (mips || mipsle) && !issuer

package applets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/manager"
	"skywire/mesh/store"
)

// memberVerbs say where they are, since what they do is not in this build.
func memberVerbs() (all []applet.Verb) {
	for _, name := range []string{"cluster", "invite", "invites", "members", "approve", "deny", "revoke", "restore"} {
		all = append(all, applet.Verb{Name: name, Summary: "not in this build", Run: func(_ context.Context, e *applet.Env) int {
			e.Talk(managerName, "this build, small enough for the flash of MIPS routers, can't sign for a cluster: run %q on any other box of it (or build with the tag issuer)", "manager "+name)
			return applet.NotFound
		}})
	}
	return all
}

// issuerFlags: there are none.
func issuerFlags(*applet.Flags, *managerConfig) {}

// newIssuer: nobody joins here.
func newIssuer(_ *applet.Flags, _ *app.Client, _ *store.DB, c managerConfig, _ *slog.Logger) (manager.Signer, error) {
	if c.Approve || c.CertificateDays > 0 {
		return nil, fmt.Errorf("manager: approve and certificate_days are in the configuration, and this build can't sign: %w", errors.ErrUnsupported)
	}
	return nil, nil
}
