package link

import "errors"

var (
	// ErrSelf is returned when a node is asked to link with its own key.
	ErrSelf = errors.New("this is our own key: a node can't link with itself")
	// ErrTooManyLinks is returned when MaxLinks neighbours exist already.
	ErrTooManyLinks = errors.New("too many links")
	// ErrDown is returned when a message is to be sent over a link without keys.
	ErrDown = errors.New("link is down")
	// ErrUnproven is returned when more would be sent to an address than was received from it before the neighbour has
	// proved that it is there.
	ErrUnproven = errors.New("address not proven")
	// ErrTooLong is returned when a message exceeds what pieces may carry.
	ErrTooLong = errors.New("message too long")
)
