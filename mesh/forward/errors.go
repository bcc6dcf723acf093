package forward

import "errors"

var (
	// ErrSlots is returned by Alloc when no run of free labels is long enough.
	ErrSlots = errors.New("forward: no free labels")
	// ErrSlotTaken is returned by Restore when a label is in use, resting or out of range.
	ErrSlotTaken = errors.New("forward: label is taken")
	// ErrNoPath is returned when a session has no active path.
	ErrNoPath = errors.New("forward: no path")
	// ErrNoKey is returned when a session or its path's first link has no key to send with.
	ErrNoKey = errors.New("forward: no key to send with")
	// ErrLinkDown is returned when a path's first link is not up or has no address.
	ErrLinkDown = errors.New("forward: link is down")
	// ErrTooBig is returned when a frame does not fit the path.
	ErrTooBig = errors.New("forward: does not fit the path")
	// ErrRetired is returned when a lane's counter is used up: the path has to be replaced.
	ErrRetired = errors.New("forward: path is used up")
	// ErrClosed is returned by the methods of a Loop that has ended.
	ErrClosed = errors.New("forward: loop has ended")
	// ErrBusy is returned by Loop.Post when its queue is full.
	ErrBusy = errors.New("forward: loop's queue is full")
)
