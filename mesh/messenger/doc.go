// Package messenger is how people and clusters talk: the engine that queues, delivers, keeps and shows messages, the contacts,
// what others may ask of this box by message, and the methods of the daemon's socket. DESIGN.md tells the path of a message.
//
// It does not seal (mesh/messenger/envelope), does not decide who may link to a node (mesh/node), serves no HTTP, and starts no
// program but the hooks that its owner has named.
package messenger
