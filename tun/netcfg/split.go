package netcfg

import "net/netip"

// Split is what a client's box sends by the tunnel and what not, beyond what routes say, and whose packets of others it
// takes along.
type Split struct {
	Mark uint32 // packets with it go past the tunnel
	// Only turns the lists below round: they alone go by the tunnel, all else past it.
	Only    bool
	UIDs    []uint32
	Cgroups []string // paths below the cgroup v2 mount
	Domains bool     // the sets that Resolved fills
	// Gateways are devices or networks whose clients go by the tunnel, under this box's addresses in it.
	Gateways []Gate
}

// Gate is a device, or a network, with clients.
type Gate struct {
	Device string
	Prefix netip.Prefix
}
