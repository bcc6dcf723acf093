// Package forward is the data plane: it takes trains of datagrams and packets of a TUN, finds each one's entry in the
// label table or the route table, and relays, opens or seals it. It holds no keys of its own, speaks to no neighbour,
// reads no clock and, but for [Loop], does no I/O: sockets, devices and the poller arrive as interfaces.
//
// The stages, in the order a packet meets them, and the file that holds each:
//
//	worker.go     Receive: cut the train in runs of one label, look the slot up
//	relay.go      a run that goes on: tag, ttl, window, relabel in place, new tag, out from the same buffer
//	end.go        a run that ends here: tag, AEAD, window, kind
//	inner.go      the opened packet: version, lengths, source and destination, ECN, checksum
//	fragment.go   pieces back into a packet
//	originate.go  a packet of ours: route, session, path, lane, cut if needed
//	ways.go       several paths at once: which flow goes where, and which packets twice
//	seal.go       header, counter, AEAD, hop tag, straight into the train being built
//	backlog.go    what a full socket did not take waits here, by CoDel's law (codel.go)
//	loop.go       the event loop that feeds a worker; pause.go stops it reading TUNs
//
// Rules. Control (one goroutine) writes: it makes links, sessions, paths and entries and moves the pointers inside them.
// Workers read, one goroutine each, and share nothing but atomics and the windows; a window's lock is taken once a run
// and never held while calling out. Nothing here allocates for a packet. What can't be placed is counted under a name
// of [Drop] and handed up, never answered.
package forward
