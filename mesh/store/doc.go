// Package store keeps what a daemon must find again after a power cut: relay rules, signed records, replay numbers of
// setups, pinned peers, counters, the statements of a cluster, invites, and the numbers of the node itself. One bbolt
// file per applet, in its state directory.
//
// It does not decide what to keep or when: the caller gathers changes and writes them as one batch, at most once a
// minute for anything but membership and money, for flash wears out. Keys of sessions, end points' paths and frame
// counters never come here. No other package imports bbolt.
//
// Rules: a batch is on disk whole or not at all when Batch returns; a batch that changes nothing writes nothing; a value
// that does not parse is left out and counted, never fatal. A DB is safe for concurrent use. A nil *DB keeps nothing
// and says ErrNone: what a daemon has that goes on in memory because its disk is full.
package store
