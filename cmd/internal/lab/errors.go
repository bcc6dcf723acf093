package lab

import "errors"

var (
	// ErrNotRoot is returned by New when the process is not root, not even in a user namespace.
	ErrNotRoot = errors.New("network namespaces need root")
	// ErrTimeout is returned by Wait when the condition did not come true in time; it wraps the last reason.
	ErrTimeout = errors.New("timed out")
)
