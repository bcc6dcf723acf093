package envelope

import "errors"

var (
	// ErrFormat is returned when bytes or text are not the encoding asked for, or exceed its bounds.
	ErrFormat = errors.New("malformed")
	// ErrSignature is returned when a signature is not that of the key named beside it. Whoever sent it made it up,
	// altered it, or sealed for one device what was signed for another.
	ErrSignature = errors.New("wrong signature")
	// ErrMisdirected is returned when an envelope is addressed to another device.
	ErrMisdirected = errors.New("addressed to another device")
	// ErrPrekey is returned when the secret of a prekey is not held: it was erased, or never was ours; or when a prekey
	// of a card is no key. The sender needs a newer card.
	ErrPrekey = errors.New("no such prekey")
	// ErrSealed is returned when a box does not open with the secret that it names: a byte of it was altered.
	ErrSealed = errors.New("the box does not open")
	// ErrBare is returned when something other than a card is sealed, or was, to a device's own key, which is kept for
	// ever and so gives no forward secrecy.
	ErrBare = errors.New("only a card may be sealed to a device's own key")
	// ErrNoPrekey is returned when a card has no prekey for the time of sending: a newer card is needed first.
	ErrNoPrekey = errors.New("the card has no prekey for this time")
	// ErrAuthority is returned when a device does not speak for the account that its card names: no certificate, no role
	// messenger, revoked, expired, or statements of another cluster.
	ErrAuthority = errors.New("does not speak for the account")
	// ErrStale is returned when a card is older than one that was admitted from the same device.
	ErrStale = errors.New("older than what is held")
	// ErrFull is returned when the bounds of an Authority are reached.
	ErrFull = errors.New("no room for more devices or statements")
	// ErrTooLarge is returned when a bundle has more than its bounds allow; nothing was sealed.
	ErrTooLarge = errors.New("too large")
	// ErrStamp is returned when a stamp is not finished: its context ended first, or it asks for more than MaxStamp.
	ErrStamp = errors.New("no stamp made")
)
