// Package mesh is the map of the mesh: what its packages are, which words they use, the way of a packet through them, and
// the keys of the log. It holds no code. DESIGN.md beside it holds the seams between the packages and the reasons.
//
// # Map
//
//	key        identities, their text forms and files, addresses                          pure
//	wire       every frame: layout, Append, Parse; SPEC.md is the protocol                pure
//	session    handshake, ciphers, hop tags, rekey, replay windows                        pure
//	link       adjacency as a state machine; link/udp is the socket that does its I/O, link/framed the streams that
//	           link/tcp and link/wss make
//	           beside it: watch (addresses and routes of this box), lan (beacons), portmap (gateways)
//	forward    label slots, the event loop, relay and end, counters
//	member     who belongs to a cluster: signed statements, their merge, invites          pure
//	route      records, the link-state database, paths over it                            pure
//	store      what must survive a restart; alone knows bbolt
//	node       the owner loop that puts the above together; node/api is its socket
//	app        what a program imports to join the node; no QUIC in it
//	stream     reliable streams between nodes over QUIC; in the node only
//	manager    sees the mesh, proposes paths                                              an app
//	tracker    registry of services                                                       an app
//	messenger  messages, files, groups and calls by key; messenger/envelope seals them     an app
//	peering    records of two clusters, the gate that serves them, visits to other networks; beside the messenger
//	meshtest   whole networks in one goroutine on virtual time, and scripts of them; meshtest/emulator is a bad link
//
// mesh imports signal (the codec of all control) and nothing else of the project: devices and sockets arrive as
// interfaces that forward declares. The table is in cmd/skywire/testdata/imports.txt, and a test holds it.
//
// # Words
//
// One word for one thing, in code, logs, commands and documents:
//
//	identity   an Ed25519 key pair; the public key names a node, a person or a cluster
//	node       a running mesh daemon; manager, vpn, socks … are apps beside it
//	cluster    the nodes that accept one cluster key
//	carrier    how a link's datagrams travel: udp, tcp, wss (a WebSocket)
//	link       an authenticated, encrypted adjacency of two nodes
//	path       a chain of links from one node to another
//	label      32-bit number, local to one node, that names the next step of a path (generation 12, slot 20 bits)
//	route      the rules that a path puts on each node: in-label → out-link, out-label
//	session    the end-to-end encrypted association of two nodes, whatever path it uses
//	record     a node's signed statement of itself: addresses, links with measured cost, services
//	LSDB       link-state database: the records that a node or manager knows
//	service    what an app offers at (public key, name)
//	lane       one writer's share of a path, with a label and a counter of its own
//	petname    a name that this box's owner gave to a key; it comes before all others
//	account    who one is to others: a node's own key, or a cluster key for which nodes with the role messenger speak
//	card       a device's signed statement of itself: account, places, mailboxes, prekeys
//	item       one thing said: a text, a file's offer, a receipt, a control call
//	bundle     items of one device for one device; sealed it is an envelope
//	mailbox    a device that keeps envelopes for devices that are away; custody is its signed word that it does
//	contact    an account, and what the owner of this box decided of it
//	peering    a record that administrators of two clusters both signed
//	visit      a small node of one's own in somebody else's network, as a guest
//	border     a node that lets guests of peered clusters in, as far as the record says
//	network id 8 bytes: hash of the cluster key, or of "open"
//	app        a program that joins the node (data) and viscript (control)
//
// Directions are the node's: receive, open, forward, deliver; originate, seal, send.
//
// # The way of a packet
//
// From a program on A to a program on B over relay R:
//
//	A  the kernel routes it to the TUN; forward's loop reads it, finds the session by its destination, claims the next
//	   counter of a lane of the session's active path, seals it (one AEAD), writes label and hop tag of the first link
//	   and sends the datagram.
//	R  the loop receives it, finds the slot that the label names, checks the hop tag under the key of the link that the
//	   slot names, the ttl and the replay window; it writes the next label and a new hop tag into the same buffer, counts
//	   the bytes and sends it on. It cannot open it.
//	B  the slot names a path that ends here: hop tag, AEAD, replay window, then the inner source address must be one that
//	   A's key may use; the packet is written to the TUN.
//
// A byte of a stream (socks) goes the same way as part of a QUIC datagram, on the path's last lane, already sealed by QUIC.
// Anything else (handshakes, frames of a link, sealed control) leaves the loop as a copy for node's owner loop.
//
// # Keys of the log
//
// Facts are key/value, the keys from this list, in snake_case; a test reads it:
//
//	addr address app applet at bytes carrier cause chain changes cluster count device err everybody exit file found from gro gso id ipv6
//	kept_as key keys lives loops manager mtu name nat node password path paths peer pid ports private queues rcvbuf_bytes reason
//	remedy restarted retry_ms rtt_ms run server service socket subnet subnets table target to type uid verdict
package mesh
