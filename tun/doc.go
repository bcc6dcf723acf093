// Package tun is the I/O of a TUN device: one descriptor between the kernel's IP stack and the node's loop.
//
// The vpn app makes the device (Create, which needs CAP_NET_ADMIN) and passes the open descriptor to the node, which
// wraps it (FromFile, which needs no rights). The package configures nothing: addresses, mtu and routes belong to
// tun/netcfg. It keeps no goroutine and no lock: all methods of a Device are called from one loop.
//
// Two forms exist, and the descriptor's own flags decide which one FromFile makes:
//
//	plain   one packet a system call; checksums that the far end left open are filled in here
//	vnet    IFF_VNET_HDR: the kernel hands over super-packets of up to 64 KB, which Packet cuts into segments, and takes
//	        super-packets, which Send builds from consecutive TCP segments or UDP datagrams of one flow and Flush writes
//
// No field of a virtio header ever comes from the network: the header written to the kernel is made from the package's
// own parse of the packet, and a packet that says its checksum is open but cannot be parsed is refused.
package tun
