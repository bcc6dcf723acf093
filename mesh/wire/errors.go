package wire

import "errors"

var (
	// ErrLength is returned when a frame or message is shorter or longer than its layout.
	ErrLength = errors.New("wrong length")

	// ErrType is returned when the first byte names another frame than the one asked for, or none known.
	ErrType = errors.New("wrong type")

	// ErrValue is returned when a field holds a value that the layout does not allow.
	ErrValue = errors.New("value not allowed")

	// ErrTooLarge is returned when something does not fit in the pieces that a message may be cut into.
	ErrTooLarge = errors.New("too large")
)
