package route

import "errors"

var (
	// ErrFormat is returned when bytes are not a record: cut short, too long, out of order, or not the one canonical
	// encoding of what they say.
	ErrFormat = errors.New("malformed record")
	// ErrKey is returned when the key in a record is not a valid identity.
	ErrKey = errors.New("record with an invalid key")
	// ErrSignature is returned when the signature of a record does not verify for this network.
	ErrSignature = errors.New("record with a bad signature")
	// ErrDigest is returned when bytes are not a digest.
	ErrDigest = errors.New("malformed digest")
)
