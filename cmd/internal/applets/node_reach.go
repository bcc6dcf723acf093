package applets

import (
	"skywire/cmd/internal/applet"
	"skywire/mesh/node"
)

// nodeReach are the settings of how a node finds others and is found.
type nodeReach struct {
	NoLAN bool   `yaml:"no_lan"`
	NoMap bool   `yaml:"no_port_mapping"`
	To    string `yaml:"publish"`
}

func (c *nodeReach) flags(f *applet.Flags) {
	f.BoolVar(&c.NoLAN, "no-lan", false, "neither look for nodes of the same mesh on local networks nor be found there (UDP port 7666)")
	f.BoolVar(&c.NoMap, "no-port-mapping", false, "do not ask gateways to map our port (PCP, NAT-PMP, UPnP)")
	f.StringVar(&c.To, "publish", "", "to `WHOM` this node tells its addresses: cluster (default; nobody in an open mesh), peers (only sealed, to nodes it talks with) or none")
}

// finding is what the node is told of it.
func (c *nodeReach) finding() (node.Finding, error) {
	to, err := node.PublishNamed(c.To)
	if err != nil {
		return node.Finding{}, applet.Usagef("--publish %v", err)
	}
	return node.Finding{LAN: !c.NoLAN, Map: !c.NoMap, Publish: to}, nil
}
