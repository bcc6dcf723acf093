package applets

import (
	"context"
	"fmt"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
)

const nodeWhoisAbout = `Says who a node is: its key, mesh address, name, and what its certificate says.

    node whois 100.64.3.9                        who has this address of the cluster
    node whois alice.mesh
    node whois 192.168.9.7                       to whom packets for this address go (via: a server of vpn client or vpn up)`

func nodeWhois(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node whois", "NODE|ADDRESS [--json]", nodeWhoisAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "node.whois", map[string]string{"name": words[0]}, func(i app.Identity) error {
		p := func(format string, args ...any) { fmt.Fprintf(e.Stdout, format+"\n", args...) }
		if i.Via {
			p("%s goes to", words[0])
		}
		p("key      %s", i.Key)
		p("address  %s", i.Address)
		if i.Name != "" {
			p("name     %s", i.Name)
		}
		if i.IPv4.IsValid() {
			p("IPv4     %s", i.IPv4)
		}
		p("member   %s", vpnYesNo(i.Member))
		if len(i.Tags) > 0 {
			p("tags     %s", strings.Join(i.Tags, " "))
		}
		return nil
	})
}
