package udp

import (
	"net/netip"
	"time"
)

const (
	// DefaultBuffer is asked of the kernel for what arrives: 60 trains, 8 ms at 4 Gbit/s.
	DefaultBuffer = 4 << 20
	// maxSendBuffer is the most that is asked for what is sent: 4 trains.
	maxSendBuffer = 256 << 10
	// besiegedBuffer is asked instead where strangers are answered, see MakeRoom: Linux keeps 1,024 neighbours, and an
	// answer to one that is not there takes 768 bytes.
	besiegedBuffer = 1 << 20
	// besiegedTime is how often that is asked for at most.
	besiegedTime = time.Second
	// MaxSegments is the most datagrams of one UDP_SEGMENT call that every kernel takes.
	MaxSegments = 64
	// MaxTrain is the most bytes of one.
	MaxTrain = 65000
	// sendWait bounds how long Send waits for room before it drops a train.
	sendWait = 2 * time.Millisecond
)

// Config says how to make a socket.
type Config struct {
	// Addr is where to listen. An unspecified IPv6 address, or none, listens on IPv4 as well; where the kernel has no IPv6,
	// on IPv4 alone. Port 0 takes any.
	Addr netip.AddrPort
	// Plain turns the train path off, for kernels whose offload is broken and for tests.
	Plain bool
	// ReusePort lets several sockets listen on one port, one per event loop.
	ReusePort bool
	// Buffer is the size asked for both kernel buffers; 0: DefaultBuffer.
	Buffer int
}

// Info is what a socket turned out to be.
type Info struct {
	Addr          netip.AddrPort
	DualStack     bool  // an IPv6 socket that does IPv4 too
	GSO, GRO      bool  // trains out, trains in
	GSORefused    error // why GSO was turned off, though the kernel has it: EIO is a device without checksum offload
	MMsg          bool  // several datagrams a system call where GSO or GRO are missing
	ECN           bool  // the ECN field of outer headers is read and written
	AskedBuffer   int   // bytes asked of the kernel for what arrives
	ReceiveBuffer int   // bytes it really gave, without its own overhead; 0: not known here
	// The same for what is sent, at first: LimitSend takes some back while a slow line is full.
	AskedSendBuffer, SendBuffer int
}

func (c Config) withDefaults() Config {
	if c.Buffer <= 0 {
		c.Buffer = DefaultBuffer
	}
	if !c.Addr.Addr().IsValid() {
		c.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), c.Addr.Port())
	}
	return c
}
