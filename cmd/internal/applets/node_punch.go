package applets

import (
	"fmt"
	"io"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/node/api"
)

// nodePunch are the settings of punching.
type nodePunch struct {
	NoPunch bool `yaml:"no_punch"`
}

func (c *nodePunch) flags(f *applet.Flags) {
	f.BoolVar(&c.NoPunch, "no-punch", false, "stay on paths over relays: neither look for direct links through NATs nor answer who does")
}

// printNAT tells what is between the node and the internet.
func printNAT(w io.Writer, s api.NATStatus) {
	fmt.Fprintf(w, "NAT       %s", s.Kind)
	if len(s.Seen) > 0 {
		fmt.Fprintf(w, ", seen at %s by %d", strings.Join(s.Seen, " "), s.Observers)
	}
	switch {
	case !s.Punching:
		fmt.Fprint(w, ", no punching (--no-punch)")
	case s.Punched > 0:
		fmt.Fprintf(w, ", %d links punched", s.Punched)
	}
	fmt.Fprintln(w)
}
