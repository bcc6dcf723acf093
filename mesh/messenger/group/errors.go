package group

import "errors"

var (
	// ErrFormat is returned when bytes are not the encoding asked for, or exceed its bounds.
	ErrFormat = errors.New("malformed")
	// ErrSignature is returned when a change is not signed by the device that it names.
	ErrSignature = errors.New("wrong signature")
	// ErrAuthority is returned when the device of a change does not speak for its account by the statements in the log.
	ErrAuthority = errors.New("does not speak for the account")
	// ErrForbidden is returned when the author of a change, by all that the change follows, may not make it: no member, no
	// admin, or not above the one that it takes something from.
	ErrForbidden = errors.New("not allowed in this group")
	// ErrOrphan is returned when a change follows one that is not held: what is missing has to come first.
	ErrOrphan = errors.New("follows a change that is not known")
	// ErrOther is returned when a change is one of another group.
	ErrOther = errors.New("of another group")
	// ErrStale is returned when a change is of a generation before the one held.
	ErrStale = errors.New("of an older generation")
	// ErrFull is returned when the bounds of a group are reached: members, admins, or changes of a generation.
	ErrFull = errors.New("the group is full")
)
