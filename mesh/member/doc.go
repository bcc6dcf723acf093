// Package member is who belongs to a cluster: the statements that the cluster key and its admins sign, the set of them
// that a node holds and merges, the floor clock that tells when a certificate has run out on a box without a clock, the
// invite, and the proof that redeems it. SPEC.md beside it has every byte.
//
// It does no I/O, keeps no files, reads no clock and starts nothing: statements and instants go in, verdicts come out.
// Who is linked, who is cut off and what is stored follow from them elsewhere (mesh/node, mesh/manager, mesh/store).
//
// Rules: what is held depends on the statements seen, not on their order or repetition, and an old statement never brings
// back what a newer one took. No statement of an admin gives a scope; only the list that the cluster key signed does. One
// goroutine uses a State; the values it returns are immutable.
package member
