package key

import "errors"

var (
	// ErrInvalid is returned when bytes or text are not a valid public key: wrong length or alphabet, not
	// canonical, not on the curve, sign bit 1, or outside the prime-order subgroup.
	ErrInvalid = errors.New("invalid public key")

	// ErrSeed is returned when a seed gives a public key with sign bit 1, which is no identity here.
	ErrSeed = errors.New("seed gives a public key with sign bit 1")

	// ErrFile is returned when a key file exists but does not hold a key. It is never overwritten.
	ErrFile = errors.New("not a skywire key file")

	// ErrMode is returned when a key file can be read by others than its owner.
	ErrMode = errors.New("key file is readable by others")
)
