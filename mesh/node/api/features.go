package api

import "fmt"

// Feature is one thing of the data plane that a kernel, a device or a CPU has or lacks, one element of node.status.
type Feature struct {
	Of     string `json:"of"`   // what it belongs to: a socket, a device, the box
	Name   string `json:"name"` // as in the constants
	On     bool   `json:"on"`
	Found  string `json:"found,omitempty"`  // a figure, or why it is off
	Costs  string `json:"costs,omitempty"`  // while it is off
	Remedy string `json:"remedy,omitempty"` // while it is off, if there is one
}

// Names of features. lack says what each is good for.
const (
	FeatureGSO        = "gso"
	FeatureGRO        = "gro"
	FeatureECN        = "ecn"
	FeatureMMsg       = "mmsg"
	FeatureReceive    = "receive buffer"
	FeatureSend       = "send buffer"
	FeatureAES        = "aes"
	FeatureVnetHdr    = "vnet_hdr"
	FeatureChecksum   = "csum"
	FeatureTSO4       = "tso4"
	FeatureTSO6       = "tso6"
	FeatureTSOECN     = "tso_ecn"
	FeatureUSO4       = "uso4"
	FeatureUSO6       = "uso6"
	FeatureJoinUDP    = "join_udp"
	FeatureMultiQueue = "multi_queue"
	FeatureStreamTCP  = "stream_tcp"
)

// NewFeature says of a feature that it is on, or what its lack costs. A remedy given takes the place of the usual one.
func NewFeature(of, name string, on bool, found, remedy string) Feature {
	f := Feature{Of: of, Name: name, On: on, Found: found}
	if !on {
		f.Costs, f.Remedy = lack(name)
		if remedy != "" {
			f.Remedy = remedy
		}
	}
	return f
}

// lack returns what the lack of a feature costs, and the usual remedy. The ratios were measured by switching one thing off
// on one machine (mesh/DESIGN.md, Offloads); on others they differ, their order does not.
func lack(name string) (costs, remedy string) {
	const old = "a kernel of Linux %s or later"
	switch name {
	case FeatureGSO:
		return "a trip through the kernel for each datagram sent: 3 to 14 times the CPU of sending", fmt.Sprintf(old, "4.18")
	case FeatureGRO:
		return "a trip through the kernel for each datagram received: 3 to 5 times the CPU of receiving", fmt.Sprintf(old, "5.0")
	case FeatureECN:
		return "routers between two nodes can only drop to tell of congestion, not mark", ""
	case FeatureMMsg:
		return "about a tenth of the datagrams a second, where gso or gro are missing too", fmt.Sprintf(old, "3.0")
	case FeatureReceive:
		return "bursts above it are dropped: 200 kB are three trains of a fast sender", "sysctl -w net.core.rmem_max=4194304"
	case FeatureSend:
		return "senders wait for the wire more often", "sysctl -w net.core.wmem_max=4194304"
	case FeatureAES:
		return "ChaCha20-Poly1305 instead, the better one for this CPU: about two thirds of the throughput that AES in hardware has", ""
	case FeatureVnetHdr:
		return "TCP passes the device packet by packet: about two fifths of the throughput are left", "let skywire make the device"
	case FeatureTSO4, FeatureTSO6:
		return "TCP of this IP version passes packet by packet: about two fifths of the throughput are left", fmt.Sprintf(old, "2.6.27")
	case FeatureTSOECN:
		return "TCP segments with CWR come one by one: only flows that use ECN, and only after congestion", ""
	case FeatureChecksum:
		return "checksums are computed and checked in between: some 7 % of the CPU", ""
	case FeatureUSO4, FeatureUSO6:
		return "a system call for each UDP packet that programs here send (QUIC); TCP loses nothing", fmt.Sprintf(old, "6.2")
	case FeatureJoinUDP:
		return "a system call for each UDP packet for programs here (QUIC); TCP loses nothing", fmt.Sprintf(old, "6.2")
	case FeatureStreamTCP:
		return "streams stay with QUIC: some Mbit/s over long paths that lose packets, where TCP with BBR has many times that",
			"modprobe tcp_bbr && sysctl -w net.ipv4.tcp_allowed_congestion_control='reno cubic bbr'"
	case FeatureMultiQueue:
		return "one event loop reads the device for all: matters from three cores on", ""
	}
	return "", ""
}
