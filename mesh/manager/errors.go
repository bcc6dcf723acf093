package manager

import "errors"

// ErrRunning is returned by a second Run.
var ErrRunning = errors.New("manager: runs already")
