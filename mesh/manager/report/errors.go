package report

import "errors"

// ErrEnded is returned when a stream ended because the manager, or the way to it, went away.
var ErrEnded = errors.New("stream ended")
