package node

import "errors"

var (
	// ErrNotAdmitted is returned when a key is on no list of this node.
	ErrNotAdmitted = errors.New("key is not admitted here (run with --open or --allow KEY)")
	// ErrSelf is returned when a node is asked for a session with itself.
	ErrSelf = errors.New("this is our own key")
	// ErrUnreachable is returned when no path to a node could be set up.
	ErrUnreachable = errors.New("no path to the node")
	// ErrTimeout is returned when a node did not answer.
	ErrTimeout = errors.New("no answer")
	// ErrTooManySessions is returned when the session table is full.
	ErrTooManySessions = errors.New("too many sessions")
	// ErrBusy is returned when too many requests of a kind are under way.
	ErrBusy = errors.New("too many requests at once")
	// ErrClosed is returned when the node has ended.
	ErrClosed = errors.New("node has ended")
	// ErrUnknown is returned when a name stands for no node that is known here.
	ErrUnknown = errors.New("no such node")
)
