// Package envelope is what messengers say to each other, as bytes: cards, items in bundles, the sealed envelope around a
// bundle, prekeys, custody, stamps, contact links, safety numbers, changes of keys. SPEC.md beside it has every byte.
//
// It does no I/O, reads no clock, keeps no state and starts nothing: keys and bytes go in, bytes and verdicts come out. What
// was seen before, who is a contact, and when to send are the messenger's (mesh/messenger).
//
// Rules: whatever was parsed encodes to the same bytes again; every length is bounded before it is used; who sent a bundle
// stands inside the box alone, and its signature names the device and the prekey it was sealed for.
package envelope
