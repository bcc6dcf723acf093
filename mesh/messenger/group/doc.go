// Package group is who is in a group: a log of signed changes, each naming the ones it follows, and the roster that
// follows from them. DESIGN.md beside it says why it is so, SPEC.md has every byte.
//
// It does no I/O, reads no clock and sends nothing: changes go in, in any order that has parents before children, and a roster
// comes out that depends on the set of them alone. Who gets what, and when, is the messenger's.
//
// Rules: the founder is above all admins, an admin above those who became one after him, and only from above is an admin evicted; what
// someone changed without having seen his own eviction is void; of an eviction and an addition that did not see each other the
// eviction holds. So no old record, and no record that someone evicted makes afterwards, undoes an eviction. One goroutine uses a
// Roster; what it returns is the caller's.
package group
