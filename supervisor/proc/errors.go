package proc

import "errors"

// ErrGone is returned by Adopt when the process has ended, or its number belongs to another one now.
var ErrGone = errors.New("the process is gone")
