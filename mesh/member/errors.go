package member

import "errors"

var (
	// ErrFormat is returned when bytes or text are not the encoding asked for.
	ErrFormat = errors.New("malformed")
	// ErrSignature is returned when a statement is not signed by the key that it names. Whoever sent it made it up or
	// did not look.
	ErrSignature = errors.New("wrong signature")
	// ErrUntrusted is returned when the signer is no admin of the list held, or may not sign such a statement: other
	// roles, tags, addresses or a longer life than the list lets it give.
	ErrUntrusted = errors.New("signed by nobody who may")
	// ErrStale is returned when a newer statement about the same is held.
	ErrStale = errors.New("older than what is held")
	// ErrFull is returned when the bounds of a State are reached.
	ErrFull = errors.New("no room for more statements")

	// ErrProof is returned when the proof of an invite's secret is wrong.
	ErrProof = errors.New("wrong proof of the invite's secret")
	// ErrOver is returned when an invite has expired, was used up, or was closed by wrong proofs.
	ErrOver = errors.New("the invite is over")
)
