package session

import "errors"

var (
	// ErrConfig is returned when a Config or payload of ours lacks what a handshake needs.
	ErrConfig = errors.New("handshake not configured")

	// ErrMessage is returned when a handshake message has the wrong length or does not decrypt.
	ErrMessage = errors.New("handshake message refused")

	// ErrLowOrder is returned when an ephemeral key gives the zero secret; nothing was read of the message.
	ErrLowOrder = errors.New("ephemeral key of small order")

	// ErrPeer is returned when the peer's static key is no valid identity, or our own.
	ErrPeer = errors.New("peer key refused")

	// ErrVersion is returned when the peer does not speak this version, or a higher one was possible.
	ErrVersion = errors.New("version refused")

	// ErrCipher is returned when no cipher is common, or the choice was not offered.
	ErrCipher = errors.New("cipher refused")

	// ErrSpent is returned by a Handshake that succeeded already or saw too many wrong answers.
	ErrSpent = errors.New("handshake is over")

	// ErrOpen is returned when a sealed frame, cookie or proof does not authenticate.
	ErrOpen = errors.New("does not authenticate")

	// ErrMAC is returned when mac1 is wrong: the sender does not know our key. Nothing is answered.
	ErrMAC = errors.New("mac1 is wrong")

	// ErrReplay is returned for an INIT seen before whose answer is not due again.
	ErrReplay = errors.New("handshake seen before")

	// ErrBusy is returned under load, with or without a COOKIE to send.
	ErrBusy = errors.New("too many handshakes")

	// ErrLabel is returned when a RESP or COOKIE names another handshake than the one under way.
	ErrLabel = errors.New("not the handshake under way")
)
