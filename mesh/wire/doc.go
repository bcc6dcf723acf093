// Package wire holds every byte layout that nodes exchange: the 24-byte header, the handshake frames, the
// messages inside LINK frames, the sealed session control, and the path setup with its signature. SPEC.md beside
// it is the protocol; each constant here appears there and each one there appears here.
//
// It does no I/O, keeps no state, reads no clock and allocates only what a parsed value holds. All numbers are
// big endian. Append adds a value's bytes to dst; Parse never panics, never keeps its argument, and accepts
// exactly what Append makes; only the room in Payload and in Inner is ignored.
package wire
