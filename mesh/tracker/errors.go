package tracker

import "errors"

var (
	// ErrFull is returned when the registry holds as many nodes as it takes.
	ErrFull = errors.New("the tracker is full")
	// ErrStale is returned for a record that is older than one known, or that was repeated for too long.
	ErrStale = errors.New("record is out of date")
	// ErrService is returned for a service with a name, type or text out of bounds.
	ErrService = errors.New("malformed service")
	// ErrRunning is returned by a second Run.
	ErrRunning = errors.New("tracker: runs already")
)
