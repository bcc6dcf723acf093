package store

import "errors"

var (
	// ErrLocked is returned when another process holds the file.
	ErrLocked = errors.New("in use by another process")
	// ErrFull is returned when the disk has no room; the file still holds what it held.
	ErrFull = errors.New("no space left for state")
	// ErrCorrupt is in the warning of a store whose file could not be read and was renamed aside.
	ErrCorrupt = errors.New("damaged")
	// ErrNewer is returned when a later version of the program wrote the file. It is left alone.
	ErrNewer = errors.New("written by a newer version")
	// ErrNone is returned by a nil DB, which keeps nothing.
	ErrNone = errors.New("no store")
	// ErrKey is returned when the key or passphrase does not open the values of a KV. The file is left alone.
	ErrKey = errors.New("key or passphrase does not open it")
	// ErrFormat is returned when bytes are not the encoding asked for.
	ErrFormat = errors.New("malformed value")
)
