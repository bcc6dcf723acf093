// Package udp is the carrier that needs nothing: UDP sockets that take and give trains of datagrams, and the poller
// that waits on them. It knows nothing of frames, keys or neighbours; what a datagram means is said by mesh/forward and
// mesh/link.
//
// On Linux a socket is a raw non-blocking descriptor, used by ordinary system calls without allocation, and poller is
// epoll with an eventfd. Two ways to move trains are chosen by probing when the socket is made: UDP_GRO and UDP_SEGMENT
// ("gso"), or one datagram a call ("plain"); each half falls back alone, sending also later, when a device turns out
// to refuse it. Elsewhere a socket is a net.UDPConn read by a goroutine, with the same methods.
//
// Rules: datagrams are never fragmented by the kernel. Send may be called from any goroutine, Receive from one at a time.
package udp
