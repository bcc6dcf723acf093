// Package api is the server behind RUN/node.sock: the methods of the node as JSON-RPC, the registry of apps, and the
// streams of programs, each on a unix connection of its own.
//
// It decides who may ask (peer credentials) and what a stream may reach (the allow list of its service). It computes
// nothing of the mesh itself: that is behind the interface Node. It never sees the bytes of a TUN, and of a stream only
// in Pump.
//
// Limits are the constants of limits.go. Lock order: Server.mu alone; nothing is called out with it held.
package api

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// Node is what the server needs of the node. All methods may be called at once from several goroutines.
type Node interface {
	Info() app.Info
	Status(ctx context.Context) (Status, error)
	Peers(ctx context.Context) ([]Peer, error)
	Paths(ctx context.Context) ([]Path, error)
	Routes(ctx context.Context) ([]Route, error)
	// Records is in order of the keys.
	Records(ctx context.Context) ([]Record, error)
	// Services lists what the nodes of the mesh offer, of one type or, if typ is empty, of all.
	Services(ctx context.Context, typ string) ([]app.Service, error)
	// Resolve turns a key, petname, name.mesh or mesh address into a key.
	Resolve(ctx context.Context, name string) (key.Public, error)
	// Whois says who is called so, or has an address, or receives what is sent there.
	Whois(ctx context.Context, name string) (app.Identity, error)
	Ping(ctx context.Context, to key.Public) (time.Duration, error)
	Explainer
	// Member tells whether a peer belongs to the mesh, for services that admit any member.
	Member(peer key.Public) bool

	// AttachTUN takes the descriptors: the node closes them, at once if it returns an error.
	AttachTUN(ctx context.Context, t app.TUN, queues []*os.File) error
	DetachTUN(ctx context.Context, device string) error
	SetPolicy(ctx context.Context, p app.Policy) error
	// Sockets returns duplicates of the UDP sockets; the server closes them after sending.
	Sockets(ctx context.Context) ([]*os.File, error)

	PutRecord(ctx context.Context, raw []byte) error
	Propose(ctx context.Context, p Proposal) error

	Clusters
	Namer
}

// Streams opens and takes streams; *stream.Endpoint is the one in use.
type Streams interface {
	Dial(ctx context.Context, peer key.Public, service string, header []byte) (*stream.Stream, error)
	DialFlow(ctx context.Context, peer key.Public, service string, header []byte) (*stream.Flow, error)
	Handle(service string, s stream.Service) (remove func(), err error)
}

// Status is node.status.
type Status struct {
	Key            key.Public        `json:"key"`
	Name           string            `json:"name"`
	Address        netip.Addr        `json:"address"`
	Ready          bool              `json:"ready"`
	Cluster        string            `json:"cluster"` // key; empty: open or static
	Membership     Membership        `json:"membership"`
	Manager        ManagerStatus     `json:"manager"`
	Links          int               `json:"links"`
	Sessions       int               `json:"sessions"`
	Routes         int               `json:"routes"`
	RxBytes        uint64            `json:"rx_bytes"`
	TxBytes        uint64            `json:"tx_bytes"`
	RelayedBytes   uint64            `json:"relayed_bytes"`
	RelayedPackets uint64            `json:"relayed_packets"`
	Drops          map[string]uint64 `json:"drops"` // by reason
	Version        string            `json:"version,omitempty"`
	Listen         []string          `json:"listen,omitempty"`
	UptimeS        float64           `json:"uptime_s,omitempty"`
	Twin           string            `json:"twin,omitempty"` // alarm: what is known of another box with this key
	Features       []Feature         `json:"features"`
	Machine        Machine           `json:"machine"`
	Streams        StreamStatus      `json:"streams"`
	NAT            NATStatus         `json:"nat"`
}

// StreamStatus is what carries the streams of this node.
type StreamStatus struct {
	Open      int    `json:"open"` // whatever carries them
	OnTCP     int    `json:"on_tcp"`
	Moved     uint64 `json:"moved_total"`
	NotMoved  uint64 `json:"not_moved_total"` // should have, and TCP did not come up
	Strangers uint64 `json:"strangers_total"` // connections to a port that was open for a peer, by others
}

// ManagerStatus is the manager as this node sees it.
type ManagerStatus struct {
	Key   string `json:"key"` // empty: none configured
	State string `json:"state"`
}

// Peer is a neighbour, one element of node.peers.
type Peer struct {
	Key       key.Public `json:"key"`
	Name      string     `json:"name,omitempty"`
	Endpoint  string     `json:"endpoint"` // ADDR, as in CLI.md
	Carrier   string     `json:"carrier"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"` // why it is not up, where known
	RTT       float64    `json:"rtt_ms"`
	Jitter    float64    `json:"jitter_ms"`
	Loss      float64    `json:"loss"`            // in the worse direction
	LossIn    float64    `json:"loss_in"`         // of what it sends
	LossOut   float64    `json:"loss_out"`        // of what we send
	Capacity  uint64     `json:"capacity_kbit_s"` // towards us, 0 unknown
	UpS       float64    `json:"up_s"`            // 0: not up
	Cost      float64    `json:"cost"`            // ms, see node why
	MTU       int        `json:"mtu"`
	Initiator bool       `json:"initiator"`
	Ports     int        `json:"ports,omitempty"`      // pairs of ports in use, the link's own among them
	PortsMost int        `json:"ports_most,omitempty"` // those that there could be: the rest does not answer
	RxBytes   uint64     `json:"rx_bytes"`
	TxBytes   uint64     `json:"tx_bytes"`
}

// Path is an installed path of a session, one element of node.paths.
type Path struct {
	Peer     key.Public   `json:"peer"`
	Number   uint16       `json:"number"`
	Hops     []key.Public `json:"hops"`
	Names    []string     `json:"names"` // beside the hops
	AgeS     float64      `json:"age_s"`
	Role     string       `json:"role"` // active or standby
	State    string       `json:"state"`
	RTT      float64      `json:"rtt_ms"`
	Loss     float64      `json:"loss"`
	MTU      int          `json:"mtu"`
	RxFrames uint64       `json:"rx_frames"` // data, without control
	TxFrames uint64       `json:"tx_frames"`
}

// Route is a label rule of this node, one element of node.routes.
type Route struct {
	Label   uint32  `json:"label"`
	Kind    string  `json:"kind"` // relay or end
	In      string  `json:"in"`   // neighbour's key
	Out     string  `json:"out,omitempty"`
	OutBase uint32  `json:"out_label,omitempty"`
	Lanes   int     `json:"lanes"`
	Path    string  `json:"path"`  // path id, hex
	Bytes   *uint64 `json:"bytes"` // null: not counted, at an end
	Packets uint64  `json:"packets"`
	IdleS   int     `json:"idle_s"`
}

// Record is a signed record in short, one element of node.records.
type Record struct {
	Key      key.Public    `json:"key"`
	Name     string        `json:"name"`
	Address  netip.Addr    `json:"address"`
	Version  string        `json:"version"`
	Number   uint64        `json:"number"`
	AgeS     float64       `json:"age_s"`
	Addrs    []string      `json:"addresses"`
	Links    []RecordLink  `json:"links"`
	Services []app.Service `json:"services"`
	Raw      []byte        `json:"raw,omitempty"` // as signed
}

// RecordLink is a link as its node states it.
type RecordLink struct {
	Key      key.Public `json:"key"`
	RTT      float64    `json:"rtt_ms"`
	Loss     float64    `json:"loss"`
	Capacity uint64     `json:"capacity_bits"`
}

// Proposal is paths.propose: paths that a manager holds to be better. The node checks and decides.
type Proposal struct {
	To    key.Public     `json:"to"`
	Paths [][]key.Public `json:"paths"` // each from this node to To, both ends included
}

// RecordsParams asks for the records whose keys follow After: ask again after the last one until there is none.
type RecordsParams struct {
	After key.Public `json:"after,omitzero"`
}

// KeyParams names a node: node.ping, node.trace, node.why.
type KeyParams struct {
	Key string `json:"key"` // any form that Resolve takes
}

// NameParams is node.resolve and node.whois.
type NameParams struct {
	Name string `json:"name"`
}

// KeyResult is the result of node.resolve.
type KeyResult struct {
	Key key.Public `json:"key"`
}

// ServicesParams is node.services. Own lists what the apps of this box offer instead.
type ServicesParams struct {
	Type string `json:"type,omitempty"`
	Own  bool   `json:"own,omitempty"`
}

// PingResult is node.ping.
type PingResult struct {
	Key key.Public `json:"key"`
	RTT float64    `json:"rtt_ms"`
}

// BenchParams is node.bench.
type BenchParams struct {
	Key     string  `json:"key"`
	Seconds float64 `json:"seconds,omitempty"` // each way; default 3, at most MaxBench
}

// BenchResult is node.bench: goodput of one stream each way, as the receiver counted it.
type BenchResult struct {
	Key          key.Public `json:"key"`
	SendMbit     float64    `json:"send_mbit_s"`
	ReceiveMbit  float64    `json:"receive_mbit_s"`
	SendBytes    uint64     `json:"send_bytes"`
	ReceiveBytes uint64     `json:"receive_bytes"`
	Seconds      float64    `json:"seconds"`
}

// RecordParams is record.put.
type RecordParams struct {
	Record []byte `json:"record"`
}

// DeviceParams is tun.detach.
type DeviceParams struct {
	Device string `json:"device"`
}

// SocketsResult is carrier.sockets: the descriptors come with it.
type SocketsResult struct {
	Sockets int `json:"sockets"`
}

// App is one element of app.list.
type App struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"`
	PID      int             `json:"pid,omitempty"`
	UID      int             `json:"uid"`
	Since    time.Time       `json:"since"`
	Services []app.Service   `json:"services"`
	Status   json.RawMessage `json:"status,omitempty"` // the app's last word
	Streams  int             `json:"streams"`
	RxBytes  uint64          `json:"rx_bytes"` // from the mesh since it registered, by streams and its TUN devices
	TxBytes  uint64          `json:"tx_bytes"`
}
