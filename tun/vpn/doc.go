// Package vpn is the vpn app: it owns the TUN device of the box, hands its descriptor to the node, and decides what may
// go through it. It carries no packet: the node reads and writes the device.
//
// One App owns one device and plays up to three roles on it: up (always: the mesh address and the mesh's prefix), server
// (leases, NAT, what clients may reach) and client (an exit, the subnets of a server). One box that is both server and
// client runs both roles in one App, since a node has one TUN; a second process on the same device is refused by name of
// the first (netcfg.HeldError).
//
// Rules: every change of the box goes through tun/netcfg and is taken back when Run returns, or by the next run after a
// kill. The device is not persistent: it lives while the App or the node holds it. Lock order: App.mu alone; calls to
// the node are made without it.
//
// Server and client agree over one stream of the mesh to the service "vpn": the client's Request stands in the stream's
// header, the server's Answer in the reply, both JSON; after that the open stream is the lease. See protocol.go.
package vpn
