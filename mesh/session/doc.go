// Package session makes keys and says which of them is in use: the Noise handshake and its prologues, the ciphers
// and hop tags that follow from it, replay windows, the ring of keys across rekeys, and the gates against floods
// at either side of a handshake. It serves links and sessions alike; they differ by Purpose.
//
// It sends nothing, has no goroutine and reads no clock: time is a time.Duration handed in, bytes go in and come
// out. Nothing here locks. AEAD and HopKey are immutable and may be shared between goroutines; a Window belongs
// to whoever locks it; all else belongs to the node's owner loop. Unauthenticated input never changes state that
// an honest peer depends on, and no answer to it is longer than it was.
package session
