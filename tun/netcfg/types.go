package netcfg

import (
	"log/slog"
	"net/netip"
)

// Config says for which device settings are changed.
type Config struct {
	Dir    string // of the journal: the run directory; made with mode 0750 when missing
	Device string
	Log    *slog.Logger
}

// Link is how a device is set.
type Link struct {
	MTU        int
	QueueLen   int // packets, or super-packets, that wait for the reader
	GSOMaxSize int // 0: the kernel's
}

// RouteType is what a route does with a packet.
type RouteType string

// Route types. A Throw route ends the look-up in its table, and the next rule decides.
const (
	Unicast     RouteType = ""
	Throw       RouteType = "throw"
	Unreachable RouteType = "unreachable"
)

// Route is a route of the device; Throw and Unreachable have none.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Type   RouteType    `json:"type,omitempty"`
	Table  int          `json:"table,omitempty"` // 0: main
	Source netip.Addr   `json:"source,omitzero"` // preferred source
}

// Rule is a policy routing rule for one family.
type Rule struct {
	V6              bool   `json:"v6,omitempty"`
	Priority        int    `json:"priority"`
	Table           int    `json:"table"`
	Mark            uint32 `json:"mark,omitempty"`
	Not             bool   `json:"not,omitempty"`              // all packets but those with Mark
	UID             uint32 `json:"uid,omitempty"`              // own packets of this user alone; 0: everybody's
	SuppressDefault bool   `json:"suppress_default,omitempty"` // a default route found in Table does not count
}

// Gateway is what the firewall of a server lets through from the device to the rest of the world.
type Gateway struct {
	Sources []netip.Prefix // where inner sources lie
	Gateway []netip.Prefix // own addresses that answer ICMP and questions for names
	Local   []netip.Prefix // own addresses all services of which may be reached
	Subnets []netip.Prefix // networks offered: this box's own addresses in them may be reached as well
	Refused []netip.Prefix // what Client.Exit does not include
	NAT     bool           // hide Sources behind this box's own addresses
}

// Firewall is the whole nftables table of a device. Its zero value is an empty table.
type Firewall struct {
	Gateway *Gateway
	// Mark, where not 0, is kept per connection, so that answers to packets sent with this mark pass the reverse path
	// check of a box that sends everything else through the device.
	Mark uint32
}

// MainTable is the routing table that everybody uses.
const MainTable = 254
