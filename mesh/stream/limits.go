package stream

import "time"

// Flow control. What a peer may send before a program here has read it is memory here.
const (
	// streamWindow is what a stream starts with: 256 KiB fill 20 Mbit/s at 100 ms before the first update.
	streamWindow = 256 << 10
	// maxStreamWindow lets one stream fill 320 Mbit/s at 100 ms.
	maxStreamWindow = 4 << 20
	// connWindow and maxConnWindow are the same for all streams of a connection together.
	connWindow    = 512 << 10
	maxConnWindow = 6 << 20
	// maxWindows bounds the growth of all connections together beyond connWindow: the node's budget is 20 MB at full
	// rate, and windows are full only where a program does not read.
	maxWindows = 16 << 20
)

// On a box with little memory all of these, and the ring, are smaller by smallShare: 80 Mbit/s a stream at 100 ms.
const smallShare = 4

const (
	// MaxStreams is how many streams of one peer may be open at once: a household's browsers through one exit need a
	// thousand, and each costs two descriptors where the program is a proxy (OpenWrt's limit is often 4,096). ManyStreams
	// is for boxes with memory. Of all peers together there may be twice as many incoming ones; one more is refused as
	// busy, and so is one of a peer that has more than are left.
	MaxStreams  = 4096
	ManyStreams = 10_240
	// maxPeers bounds what the endpoint remembers of peers; those without a connection are forgotten first.
	maxPeers = 4096
	// maxConnsPerPeer: one in use, and those it replaced that still have streams. More are closed at once.
	maxConnsPerPeer = 4
)

const (
	// handshakeIdle ends a handshake during which nothing was heard for so long; as a whole it may take twice that.
	handshakeIdle = 8 * time.Second
	// idleTimeout ends a connection that hears nothing at all. Long: streams should outlive a relay's reboot and the
	// search for another path; a peer that restarted says so itself (stateless reset).
	idleTimeout = 60 * time.Second
	// keepAlive is how often a connection with nothing to say speaks: three losses in a row are forgiven.
	keepAlive = 15 * time.Second
	// idleClose ends a connection that has had no stream for so long, and with it the keep-alives.
	idleClose = 90 * time.Second
	// crossing is the time within which two connections of a pair count as dialled at once; see peer.adopt.
	crossing = 2 * handshakeIdle
	// retireGrace is how long a replaced connection stays open at least: streams on it may be on their way.
	retireGrace = 3 * time.Second
	// openTimeout bounds the wait for the first frame of a stream that the peer has opened.
	openTimeout = 15 * time.Second
	// answerTimeout bounds the wait for the answer to a dial whose context has no deadline; a service may have to
	// dial itself first.
	answerTimeout = 60 * time.Second
)

const (
	// maxPacket is the largest packet that quic-go sends or takes.
	maxPacket = 1452
	// minPacket is the size below which QUIC does not work: smaller paths carry such packets cut in two. A connection
	// begins with it, and finds out what more there is: a link whose size has not been probed yet carries 1,208 bytes, and
	// where packets are lost, packets in two pieces are lost twice as often.
	minPacket = 1200
	// ringSize is what may wait for quic-go: 8 ms at 1 Gbit/s, about a time slice of a busy core. Beyond it packets are
	// dropped and QUIC slows down. Half of it lost packets on two busy cores at 2 Gbit/s.
	ringSize = 1 << 20
	// fullFirst, fullMost and fullTotal are how long a packet waits, at first, between tries and in all, when the
	// carrier is full; then it is lost.
	fullFirst = 500 * time.Microsecond
	fullMost  = 8 * time.Millisecond
	fullTotal = 100 * time.Millisecond
)

const (
	// maxService and maxHeader bound what opens and answers a stream.
	maxService = 64
	maxHeader  = 4 << 10
	// copyBuffer is what Pump moves at once.
	copyBuffer = 32 << 10
)

// Flows of packets.
const (
	// MaxFlowPacket is the longest packet of a flow: what UDP over IPv4 carries.
	MaxFlowPacket = 65507
	// flowPackets and flowBytes bound what waits for one program: 5 ms at 100,000 packets a second. Beyond them the oldest
	// is dropped.
	flowPackets = 512
	flowBytes   = 256 << 10
	// flowKeep is the largest buffer that a flow keeps while nothing moves.
	flowKeep = 2 << 10
)

// Streams on TCP.
const (
	// maxMoves bounds the streams that TCP carries: each is a descriptor more, and four of pipes where it is spliced.
	maxMoves = 128
	// moveTimeout bounds a try, of which connectTimeout is for the TCP connection; QUIC goes on meanwhile.
	moveTimeout    = 10 * time.Second
	connectTimeout = 4 * time.Second
	// knockTimeout is for the token of one that has connected: it sends it at once. maxKnocks bounds how many may try.
	knockTimeout = 2 * time.Second
	maxKnocks    = 16
	// decideTimeout bounds the wait for the word of the end that has connected. It has all it needs by then, and a QUIC
	// connection that says nothing for so long is dead.
	decideTimeout = idleTimeout
	// moveAgain is how long a peer is left in peace after a try that failed.
	moveAgain = 30 * time.Second
	// lingerTime is how long what was written may take to arrive after Close, when the other end still sends.
	lingerTime = 30 * time.Second
	// codeWait is how much later than the kernel's reset the code may come.
	codeWait = time.Second
)

// Codes on the wire when a stream or connection ends otherwise than by its last byte.
const (
	CodeNone     = 0 // nobody is interested any more
	CodeReset    = 1 // the TCP connection behind it was reset
	CodeInternal = 2 // something failed at the node
	CodeFrame    = 3 // the first frame was malformed

	closeDone    = 0 // the node ends or has no use for the connection
	closeRetired = 1 // another connection of the pair has taken over
	closeKey     = 2 // the certificate is not the peer's
	closeBusy    = 3 // too many connections
)
