// Package dns is the name server of the vpn: it knows the names of the mesh (NAME.mesh, SERVICE.NAME.mesh, and the names of
// mesh addresses) and hands every other question on to resolvers that it is told. It changes nothing of the box (tun/netcfg
// does), keeps no cache (dnsmasq, systemd-resolved and programs do), and is no resolver: it never asks the root.
//
// Rules:
//
//   - A name of the mesh is answered here or not at all; no question about one leaves the box.
//   - Names come from Names, so from petnames and certificates, never from what a node calls itself.
//   - A question that is handed on gets a number, a port and a case of letters of our own, at random; an answer without all of
//     them is none. Everything else of question and answer stays as it is: types, flags, signatures and TTLs.
//   - Both sides are hostile: codec is golang.org/x/net/dns/dnsmessage, and questions under way, connections, sizes and times
//     are bounded by the constants of limits.go.
package dns
