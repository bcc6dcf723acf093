// Package netcfg changes the network settings of the box for the vpn and takes every change back: addresses, link
// settings, routes, rules, sysctls and nftables. It is the only importer of netlink and nftables, decides nothing (which
// routes and which rules is tun/vpn's matter) and carries no packet.
//
// Rules:
//
//   - A change is written to the journal, and synced, before it is made. The journal lies in the run directory, one per
//     device: RUN/vpn-DEVICE.journal. Close takes all changes back in reverse order and removes it; after a kill -9 the
//     next Open for the same device does.
//   - The journal is locked while a Net is open, so a device has one owner, who can be named.
//   - Taking back is idempotent: what is gone already is no error.
//   - All calls act on the network namespace of the calling thread, by sockets made for the call, and none keeps state
//     but the journal; one goroutine at a time uses a Net.
package netcfg
