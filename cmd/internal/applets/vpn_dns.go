package applets

import (
	"fmt"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/tun/dns"
	"skywire/tun/vpn"
)

// vpnDNS is the setting of names: the flag of the three daemons, and vpn.dns in config.yaml.
type vpnDNS struct {
	DNS string `yaml:"dns"`
}

func (c *vpnDNS) flags(f *applet.Flags) {
	f.StringVar(&c.DNS, "dns", "", "who resolves names that are not of the mesh: exit, system, or the `IP,IP…` of resolvers; off: NAME.mesh neither (default: exit with an exit, else system)")
}

// config is what the app is told; exit says that everything goes through one.
func (c *vpnDNS) config(exit bool) (vpn.DNSConfig, error) {
	mode, resolvers, err := dns.ParseMode(c.DNS)
	if err != nil {
		return vpn.DNSConfig{}, fmt.Errorf("--dns %w", err)
	}
	switch {
	case mode == "" && exit:
		mode = dns.Exit
	case mode == "":
		mode = dns.System
	case mode == dns.Exit && !exit:
		return vpn.DNSConfig{}, fmt.Errorf("--dns exit: there is no exit, add --exit")
	case len(resolvers) > 8:
		return vpn.DNSConfig{}, fmt.Errorf("--dns: %d resolvers, at most 8", len(resolvers))
	}
	return vpn.DNSConfig{Mode: mode}, nil
}

// vpnPrintDNS is the line of vpn status about names.
func vpnPrintDNS(p func(format string, args ...any), s *vpn.DNSStatus) {
	if s == nil {
		return
	}
	var ask []string
	for _, r := range s.Resolvers {
		ask = append(ask, r.Addr().String())
	}
	others := "as before"
	if s.Everyone {
		others = "by us, from " + strings.Join(ask, " ")
		if len(ask) == 0 {
			others = "not at all"
		}
	}
	p("  names: NAME.mesh by %s through %s; others %s; %d asked, %d failed", s.Server, s.Backend, others, s.Asked, s.Failed)
	if s.Error != "" {
		p("    %s", s.Error)
	}
}
