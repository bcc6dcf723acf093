package netcfg

import "net/netip"

// Client is what a gateway lets one client do, by the addresses that the node has proven to be its own.
type Client struct {
	IPv4    netip.Addr // leased; names the client
	IPv6    netip.Addr // its mesh address
	Exit    bool       // the internet, but for Gateway.Refused
	Subnets []netip.Prefix
	Peers   bool   // other clients
	Up      uint64 // bytes a second that it may send; 0: no limit
	Down    uint64 // and receive
	Quota   uint64 // bytes, both ways, that Used may come to; 0: no quota
	Used    Usage  // what went before this client was set
}

// Usage is what came to the gateway for one client, in bytes: that beyond its rate left out, that beyond its quota not.
type Usage struct {
	Up   uint64 `json:"up"`
	Down uint64 `json:"down"`
}
