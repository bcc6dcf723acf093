package tun

// Features is what the kernel granted a device: found when it was opened, from the kernel's own answers. All false is
// the plain form, which does the same one packet a system call.
type Features struct {
	VnetHdr    bool `json:"vnet_hdr"`    // virtio headers: super-packets can pass at all
	Checksum   bool `json:"csum"`        // packets come with checksums still open
	TSO4       bool `json:"tso4"`        // TCP super-packets, IPv4
	TSO6       bool `json:"tso6"`        // TCP super-packets, IPv6
	TSOECN     bool `json:"tso_ecn"`     // those with CWR set too
	USO4       bool `json:"uso4"`        // UDP super-packets, IPv4 (Linux 6.2)
	USO6       bool `json:"uso6"`        // UDP super-packets, IPv6
	JoinUDP    bool `json:"join_udp"`    // we write UDP super-packets; turned off when the kernel refuses one
	MultiQueue bool `json:"multi_queue"` // more descriptors can share the device
}
