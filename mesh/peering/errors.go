package peering

import (
	"errors"

	"skywire/signal"
)

var (
	// ErrFormat is returned when bytes or text are not the encoding asked for.
	ErrFormat = errors.New("malformed")
	// ErrSignature is returned when something is not signed by the keys that it names.
	ErrSignature = errors.New("wrong signature")
	// ErrUntrusted is returned when the signer is no admin of the cluster that it speaks for.
	ErrUntrusted = errors.New("signed by nobody who may")
	// ErrStale is returned for a record that is older than what is held, or that revives what was revoked.
	ErrStale = errors.New("older than what is held")
	// ErrFull is returned when there is no room for more.
	ErrFull = errors.New("no room for more")
	// ErrOver is returned for an invite that expired, was used, or that nobody here made.
	ErrOver = errors.New("the invite is over")
)

// Errors that reach people by the socket carry signal's stable names.
var (
	errNoAdmin   = signal.Errorf(signal.ErrUnsupported, "no admin key of the cluster is on this box: do this where skywire manager keeps it, or bring it here (skywire manager cluster --help)")
	errNoPeering = signal.Errorf(signal.ErrNotFound, "no such peering (skywire messenger peer list shows them)")
	errTooMany   = signal.Errorf(signal.ErrBusy, "too many visits to other networks at once")
)
