package messenger

import (
	"errors"

	"skywire/signal"
)

// refusal is an error that has a name of signal's too: callers test it with errors.Is, programs at the socket see the name, and
// scripts the exit status that the name stands for.
type refusal struct {
	kind *signal.Error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// ErrFormat is returned when bytes of a peer are not what they should be.
var ErrFormat = errors.New("malformed")

// Errors of contacts.
var (
	// ErrNoContact is returned for an account that is no contact.
	ErrNoContact error = &refusal{signal.ErrNotFound, "no such contact; messenger contact list shows them, messenger contact add URI makes one"}
	// ErrBlocked is returned for an account that is blocked.
	ErrBlocked error = &refusal{signal.ErrRefused, "this contact is blocked; messenger contact unblock lets it in again"}
	// ErrChanged is returned for a contact that is said to have another key.
	ErrChanged error = &refusal{signal.ErrRefused, "the key of this contact has changed: compare messenger contact verify with what they see, then messenger contact confirm"}
	// ErrTheirTurn is returned when the other side has not confirmed yet.
	ErrTheirTurn error = &refusal{signal.ErrRefused, "they have not confirmed us yet"}
	// ErrOurTurn is returned for one who asks and whom nobody has confirmed here.
	ErrOurTurn error = &refusal{signal.ErrRefused, "they ask to be a contact: messenger contact confirm says yes, messenger contact remove no"}
	// ErrNotConfirmed is returned when rights are to be given to one who is not confirmed.
	ErrNotConfirmed error = &refusal{signal.ErrRefused, "not a confirmed contact"}
	// ErrNotChanged is returned when nothing is said of another key.
	ErrNotChanged error = &refusal{signal.ErrUsage, "the key of this contact has not changed"}
	// ErrNotBlocked is returned for an account that is not blocked.
	ErrNotBlocked error = &refusal{signal.ErrNotFound, "not blocked"}
	// ErrSelf is returned when one's own account is to be a contact.
	ErrSelf error = &refusal{signal.ErrUsage, "this is our own account"}
	// ErrName is returned for a name that is none.
	ErrName error = &refusal{signal.ErrUsage, "a name has letters a to z, digits and inner hyphens, at most 32"}
	// ErrNameTaken is returned for a name that another contact has.
	ErrNameTaken error = &refusal{signal.ErrRefused, "another contact has this name; choose another, or rename that one first"}
	// ErrBookFull is returned when there is no room for another contact or invite.
	ErrBookFull error = &refusal{signal.ErrBusy, "no room for more; messenger contact remove makes some"}
	// ErrNoCall is returned for a call that is not remembered.
	ErrNoCall error = &refusal{signal.ErrNotFound, "no such call; messenger ctl --list shows them"}
	// ErrNoMessage is returned for an id that names no message, or more than one.
	ErrNoMessage error = &refusal{signal.ErrNotFound, "no message has this id; messenger list shows them"}
	// ErrNoFile is returned for an id that names no file, or more than one.
	ErrNoFile error = &refusal{signal.ErrNotFound, "no file has this id; messenger files shows them"}
	// ErrNoStatement is returned for an id that names no statement that is kept, or more than one.
	ErrNoStatement error = &refusal{signal.ErrNotFound, "no statement has this id; messenger statements shows them"}
	// ErrNoHTTP is returned for a hook that posts, in a build without HTTP.
	ErrNoHTTP error = &refusal{signal.ErrUnsupported, "not supported"}
)

// Errors of messages.
var (
	// ErrEnded is returned when the messenger ends before something is on disk: it may be there at the next start, or not.
	ErrEnded = errors.New("the messenger ends")
	// ErrFailed is returned by Wait for a message that will not arrive.
	ErrFailed = errors.New("message failed")
	// ErrTooLate is returned when a message that was delivered or has failed is to be canceled.
	ErrTooLate error = &refusal{signal.ErrRefused, "too late: it was delivered, or has failed"}
	// ErrTooLong is returned for a text that is larger than an item may be.
	ErrTooLong error = &refusal{signal.ErrUsage, "too long for a message (48,000 bytes); messenger file sends more"}
	// ErrQueueFull is returned when what waits to be delivered fills half of the store.
	ErrQueueFull error = &refusal{signal.ErrBusy, "the queue is full; messenger list --queued shows what waits, messenger cancel drops it, --quota makes room"}
)

// Errors of files.
var (
	// ErrNotFile is returned for a path that is no ordinary file, or of one too large.
	ErrNotFile error = &refusal{signal.ErrUsage, "not an ordinary file, or too large"}
	// ErrNoFolder is returned when files come and no folder is set for them.
	ErrNoFolder error = &refusal{signal.ErrRefused, "no folder for files: messenger run --files DIR sets one"}
	// ErrNoRoom is returned when a file does not fit on the disk.
	ErrNoRoom error = &refusal{signal.ErrBusy, "no room on the disk"}
	// ErrFileChanged is the reason of a transfer whose source is not what was offered any more.
	ErrFileChanged = errors.New("the file was changed while it was sent")
)
