package tun

// Device is the node's side of a TUN. It is made for one caller at a time. FD is for polling only.
type Device interface {
	// FD is the descriptor, non-blocking. Remove it from an epoll set before Close: others may hold copies of it.
	FD() int
	// Receive reads one packet or super-packet and returns how many packets Packet will give; unix.EAGAIN when there is
	// none, 0 and nil when what was read had to be dropped.
	Receive() (packets int, err error)
	// Packet copies the next packet of what Receive read into b. checksum says that its TCP or UDP checksum is still to
	// be filled in. ok is false when there is none left. A packet longer than b is skipped.
	Packet(b []byte) (n int, checksum bool, ok bool)
	// Send gives a packet to the kernel, at the latest with the next Flush, in order. p is not kept. checksum says that
	// its TCP or UDP checksum is still to be filled in.
	Send(p []byte, checksum bool) error
	// Flush writes what Send holds back.
	Flush() error
	// Features is what the kernel granted the device. It may be called from any goroutine.
	Features() Features
	// Close closes this descriptor; the device lives on while others hold copies.
	Close() error
}

// Config describes the device that Create makes.
type Config struct {
	Name  string // at most 15 bytes; "tun%d" lets the kernel choose
	Owner int    // uid that may attach to the device by name, for a node that runs without rights; 0: nobody but root
	Plain bool   // no IFF_VNET_HDR: one packet a system call
	// Queues above 1 make a device that takes so many by AddQueue, the first one counted. A flow stays on one queue: that
	// to which its answers are written, as soon as there are any.
	Queues int
}

// MTU bounds of a device that carries IPv6 and whose packets, sealed, still fit a UDP datagram.
const (
	MinMTU     = 1280
	MaxMTU     = 65000
	DefaultMTU = 1400 // 1400 + 44 sealed overhead + 48 UDP over IPv6 = 1492: fits Ethernet and PPPoE
)

// bufferSize holds the longest IP packet (an IPv6 one without jumbogram option) with its virtio header.
const bufferSize = maxVirtioLen + ipv6Len + 65535
