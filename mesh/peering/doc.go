// Package peering joins clusters that are run separately: records that administrators of two clusters both signed say what
// each lets the other use, a gateway at the border of each serves that and nothing else, and visits are how a node of one
// network speaks to a node of another.
//
// It holds no messages: records and their ends travel by the gateways themselves, and by the messenger through Book.Put
// and Config.Send. It links nothing: a visitor is a second node, which Config.Start runs. SPEC.md has the encodings,
// DESIGN.md the reasons.
package peering
