// Package key holds identities: Ed25519 keys, the X25519 keys derived from them, the text form that people
// copy, network ids, and the mesh addresses that follow from both.
//
// It does no networking and keeps no state; it signs only domain-separated bodies ("skywire KIND 1", zero,
// network id, body), so a signature given for one purpose never serves another. A public key is accepted only
// if it is canonical, in the prime-order subgroup and has sign bit 0: then its X25519 form gives the identity
// back, and a handshake proves exactly one. It is the only package that touches curve arithmetic.
package key
