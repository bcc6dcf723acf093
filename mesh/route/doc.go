// Package route holds what nodes state about themselves and what follows from it: the codec of signed records, the
// database of the newest record of every node, the graph made of them, and disjoint paths through that graph.
//
// It does not read a clock, open a socket, start a goroutine or write a file: time is handed in, changes are handed
// back. So the manager and the node run the same code, and a test runs a thousand of them.
//
// Rules: a record is believed because of its signature, never because of who passed it on; a link counts only when both
// ends state it, at the worse of both measures; every table has a named bound; nothing here is safe for concurrent use,
// the owner's loop calls it.
package route
