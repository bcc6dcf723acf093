//go:build mini

package applets

import (
	"context"
	"fmt"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
)

// vpnLeakCheck says that this build does not try; what the routes say stands in the status.
func vpnLeakCheck(_ context.Context, _ *applet.Flags, _ *app.Client, r vpnReport) error {
	said := "nothing, there is no exit"
	if r.Client != nil && r.Client.Exit {
		said = r.Client.LeakCheck
	}
	return fmt.Errorf("this small build has no leak check that tries; the kernel's routes say: %s", said)
}
