package lan

import "errors"

// ErrMalformed is returned when bytes from the LAN are no beacon.
var ErrMalformed = errors.New("no beacon")
