package vpn

import (
	"net/netip"
	"time"
)

// State is what the vpn is doing.
type State string

// States of an App. A server or a mere device is Up; a client is Connected only after a probe came back.
const (
	Starting   State = "starting"
	Up         State = "up"
	Connecting State = "connecting"
	Probing    State = "probing"
	Connected  State = "connected"
	Silent     State = "silent" // was connected; probes do not come back
)

// Status is what `vpn status` shows.
type Status struct {
	State   State      `json:"state"`
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	MTU     int        `json:"mtu"`
	Roles   []string   `json:"roles"`
	Started time.Time  `json:"started"`
	RxBytes uint64     `json:"rx_bytes"`
	TxBytes uint64     `json:"tx_bytes"`

	Server *ServerStatus `json:"server,omitempty"`
	Client *ClientStatus `json:"client,omitempty"`
}

// ServerStatus is what a server has given.
type ServerStatus struct {
	IPv4    netip.Addr     `json:"ipv4"`
	Exit    bool           `json:"exit"`
	IPv6    bool           `json:"ipv6"`
	NAT     bool           `json:"nat"`
	Subnets []netip.Prefix `json:"subnets"`
	Clients []LeaseStatus  `json:"clients"`
}

// LeaseStatus is one client that is on-line.
type LeaseStatus struct {
	Key   string     `json:"key"`
	IPv4  netip.Addr `json:"ipv4"`
	Exit  bool       `json:"exit"`
	Since time.Time  `json:"since"`
}

// ClientStatus is what a client got.
type ClientStatus struct {
	Server    string         `json:"server"` // key
	IPv4      netip.Addr     `json:"ipv4,omitzero"`
	Gateway   netip.Addr     `json:"gateway,omitzero"`
	Exit      bool           `json:"exit"`
	IPv6      bool           `json:"ipv6"`
	Subnets   []netip.Prefix `json:"subnets"`
	Refused   []netip.Prefix `json:"refused_subnets,omitempty"` // offered, and not taken
	Since     time.Time      `json:"since,omitzero"`            // connected
	RTT       float64        `json:"rtt_ms,omitempty"`
	Error     string         `json:"error,omitempty"` // why it is not connected
	LeakCheck string         `json:"leak_check,omitempty"`
}
