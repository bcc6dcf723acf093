// Package udp is the carrier that needs nothing: UDP sockets that take and give trains of datagrams, and the poller
// that waits on them. It knows nothing of frames, keys or neighbours; what a datagram means is said by mesh/forward and
// mesh/link.
//
// On Linux a socket is a raw non-blocking descriptor, used by ordinary system calls without allocation, and poller is
// epoll with an eventfd. Two ways to move trains are chosen by probing when the socket is made: UDP_GRO and UDP_SEGMENT
// ("gso"), or recvmmsg and sendmmsg ("plain"), where a system call takes several datagrams but each goes through the
// network stack alone. Each half falls back by itself, sending also later, when a device turns out to refuse trains. What
// recvmmsg gave is handed out as trains too, so that all above works on trains either way.
// Elsewhere a socket is a net.UDPConn read by a goroutine, with the same methods.
//
// The ECN field of a train is that of all its outer headers; Linux alone tells and sets it.
//
// BenchmarkTrain, processor time of a datagram over loopback, in which sending includes the way through the stack to the
// other socket: gso 140 ns out and 80 in, plain 2,550 and 590, one system call a datagram 2,850 and 780.
//
// Rules: datagrams are never fragmented by the kernel. Send may be called from any goroutine, Receive from one at a time.
package udp
