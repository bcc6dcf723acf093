package app

import (
	"encoding/json"
	"net/netip"

	"skywire/mesh/key"
	"skywire/signal"
)

// SocketName is the node's socket inside the run directory.
const SocketName = "node.sock"

// MaxHeader bounds the header that opens a stream and the reply that answers it.
const MaxHeader = 4 << 10

// AnyMember in Service.Allow lets every member of the mesh use the service.
const AnyMember = "*"

// Guests in Service.Allow lets those use the service who are not members of the cluster (yet), beside all members. Only
// what admits members is offered so.
const Guests = "@guest"

// Info is who the node is: the result of node.id.
type Info struct {
	Key     key.Public    `json:"key"`
	Address netip.Addr    `json:"address"`
	Name    string        `json:"name"`
	Prefix  netip.Prefix  `json:"prefix"`
	Network key.NetworkID `json:"network"`
	Queues  int           `json:"queues,omitempty"` // that a TUN device should have: one for each event loop
}

// Registration is what an app tells the node of itself; it holds for the life of the connection.
type Registration struct {
	Name     string    `json:"name"` // one app of a name at a time
	Kind     string    `json:"kind"` // "vpn", "socks", …
	Services []Service `json:"services,omitempty"`
}

// Service is what an app offers, and, with the fields of the second group, what a node of the mesh offers.
type Service struct {
	Name  string   `json:"name"` // what Dial names
	Type  string   `json:"type"`
	Port  uint16   `json:"port,omitempty"`
	Allow []string `json:"allow,omitempty"` // keys in text form, AnyMember, Guests, TagMark and a tag; empty: nobody
	Meta  string   `json:"meta,omitempty"`
	// Packets: flows of packets are taken too, beside streams.
	Packets bool `json:"packets,omitempty"`

	Key    key.Public `json:"key,omitzero"`
	Node   string     `json:"node,omitempty"` // the node's own claim of a name
	Online bool       `json:"online,omitempty"`
	RTT    float64    `json:"rtt_ms,omitempty"` // 0: not known
}

// Rule ties a prefix to a node.
type Rule struct {
	Prefix netip.Prefix `json:"prefix"`
	Key    key.Public   `json:"key"`
}

// Policy is what the node lets through a TUN, beside the mesh addresses themselves. SetPolicy replaces the whole of it.
type Policy struct {
	Routes []Rule `json:"routes,omitempty"` // packets to Prefix go to Key
	Grants []Rule `json:"grants,omitempty"` // Key may send from sources in Prefix
	Serve  []Rule `json:"serve,omitempty"`  // Key may reach destinations in Prefix through us
}

// Traffic is what a stream that the node pumped has carried, seen from here.
type Traffic struct {
	Sent     uint64 `json:"sent_bytes"`
	Received uint64 `json:"received_bytes"`
}

// MaxQueues bounds the queues of a TUN device that is handed over.
const MaxQueues = 8

// TUN names a device of which the descriptor is handed over in the same message, or those of all its queues: the kernel
// spreads flows over all that are open, so the node reads every one, whatever the number of its loops.
type TUN struct {
	Device string `json:"device"`
	MTU    int    `json:"mtu"`
}

// CallParams is app.call: Method with Params goes to the app App over the connection it registered on.
type CallParams struct {
	App    string          `json:"app"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// The lines of a stream connection, see mesh/DESIGN.md "node.sock: methods".
type (
	// Request is the first line of a stream connection.
	Request struct {
		Method string        `json:"method"` // stream.dial or stream.accept
		Params RequestParams `json:"params"`
	}
	// RequestParams holds the parameters of both methods.
	RequestParams struct {
		Key      string `json:"key,omitempty"` // dial: a key in text form
		Service  string `json:"service"`
		Header   []byte `json:"header,omitempty"`
		HandOver bool   `json:"handover,omitempty"`
		Packets  bool   `json:"packets,omitempty"` // dial: a flow of packets
	}
	// Response answers it, and later lines.
	Response struct {
		Result *Result       `json:"result,omitempty"`
		Error  *signal.Error `json:"error,omitempty"`
	}
	// Result of a dial has Reply, of an accept Header and Binding.
	Result struct {
		Key     string `json:"key"`
		Header  []byte `json:"header,omitempty"`
		Reply   []byte `json:"reply,omitempty"`
		Binding []byte `json:"binding,omitempty"`
		Packets bool   `json:"packets,omitempty"` // a flow of packets
	}
	// Verdict is the accepting program's line.
	Verdict struct {
		OK       bool          `json:"ok,omitempty"`
		Reply    []byte        `json:"reply,omitempty"`
		HandOver bool          `json:"handover,omitempty"`
		Rate     uint64        `json:"rate,omitempty"` // bytes a second and direction, for all streams of this peer to the service together
		Idle     int           `json:"idle,omitempty"` // seconds without a byte after which the stream is reset
		Error    *signal.Error `json:"error,omitempty"`
	}
)
