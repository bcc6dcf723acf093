// Package tracker is the app tracker: a registry of services that nodes offer, each of which lasts for 90 s and is
// renewed every 30. It is asked through the node, over a mesh stream, or over plain TCP as in 2017.
//
// It is no authority: whoever dials a service meets the key that the entry names or nobody, and the records of the mesh
// hold the same facts. It holds nothing on disk and moves no traffic.
//
// Rules: over a mesh stream a node speaks for itself, its key being what the handshake proved; over TCP, where nobody is
// known, only a node's signed record is taken, and the same record renews its entries for two hours at most. Limits are
// the constants of registry.go. Lock order: Registry.mu alone, no I/O with it held.
package tracker
