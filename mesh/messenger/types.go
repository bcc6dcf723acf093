package messenger

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
	"skywire/mesh/store"
)

// Service is the name of the messenger's service on the mesh.
const Service = "messenger"

// State is how far a message of ours has come. A greater one is farther, but for Failed.
type State uint8

// The states. Sent and Stored are known of the devices of the one who gets it and not kept: after a restart a message is Queued
// until a device or a mailbox is heard of again.
const (
	Queued    State = 1
	Sent      State = 2 // on its way to a device that is there
	Stored    State = 3 // a mailbox has signed for it
	Delivered State = 4 // a device has it
	Read      State = 5 // and they say that it was read
	Failed    State = 6
	Received  State = 7 // it is not ours
)

var stateNames = [...]string{"", "queued", "sent", "stored", "delivered", "read", "failed", "received"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// MarshalText is the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name; "relayed" is Stored.
func (s *State) UnmarshalText(b []byte) error {
	for i, n := range stateNames {
		if n == string(b) && n != "" {
			*s = State(i)
			return nil
		}
	}
	if string(b) == "relayed" {
		*s = Stored
		return nil
	}
	return fmt.Errorf("state %q: %w", b, ErrFormat)
}

// reaches tells whether a message in state s has come as far as want.
func (s State) reaches(want State) bool { return s != Failed && s != Received && s >= want }

// MessageID names a message everywhere.
type MessageID = envelope.ItemID

// Outgoing is something to be sent.
type Outgoing struct {
	To      key.Public    // an account
	Kind    envelope.Kind // KindText if 0
	Body    []byte
	Group   envelope.GroupID // said in this group; To is still one account
	Expires time.Duration    // from now; DefaultExpiry if 0
	// Quiet items (words, calls, rosters) are delivered like others, and stand in no history.
	Quiet bool
}

// Times of messages.
const (
	DefaultExpiry = 7 * 24 * time.Hour
	MaxExpiry     = 30 * 24 * time.Hour
)

// Message is one entry of the history.
type Message struct {
	Cursor  uint64           `json:"cursor"` // its place in the history of this box; rises
	ID      MessageID        `json:"-"`
	Account key.Public       `json:"account"`          // with whom; in a group who said it, or the first it went to
	Device  key.Public       `json:"device,omitzero"`  // that said it
	Group   envelope.GroupID `json:"-"`                // zero: none
	Out     bool             `json:"out,omitempty"`    // ours, of this device or a sibling
	Copied  bool             `json:"copied,omitempty"` // it came from a device of our own account
	Kind    envelope.Kind    `json:"kind"`
	Time    time.Time        `json:"time"`    // by the sender's clock
	Stored  time.Time        `json:"stored"`  // by ours
	Expires time.Time        `json:"expires"` // of the delivery
	Body    []byte           `json:"body"`

	State  State     `json:"state"`
	Since  time.Time `json:"since"`           // of the state
	Reason string    `json:"reason,omitzero"` // why it is not farther, or failed
	Where  string    `json:"where,omitzero"`  // the mailbox that has it
	Next   time.Time `json:"next,omitzero"`   // try
	Seen   bool      `json:"seen,omitempty"`  // one of others, by MarkRead
	// Recipients and Reached count the accounts of a group message.
	Recipients int `json:"recipients,omitempty"`
	Reached    int `json:"reached,omitempty"`
}

// MarshalJSON adds the id, the group and, for a text, the text.
func (m Message) MarshalJSON() ([]byte, error) {
	type plain Message
	v := struct {
		ID    string `json:"id"`
		Group string `json:"group,omitempty"`
		Text  string `json:"text,omitempty"`
		plain
	}{ID: m.ID.String(), plain: plain(m)}
	if m.Group != (envelope.GroupID{}) {
		v.Group = m.Group.String()
	}
	if m.Kind == envelope.KindText {
		v.Text, v.Body = string(m.Body), nil
	}
	return json.Marshal(v)
}

// Query asks for a part of the history.
type Query struct {
	With    key.Public       // zero: all
	Group   envelope.GroupID // zero: all
	After   uint64           // cursor
	Before  uint64           // cursor; 0: no bound. With Last it pages backwards
	Last    bool             // the last Limit, in their order, instead of the first
	Limit   int              // 100 if 0, at most 1000
	Unread  bool             // of others, not marked read
	Receive bool             // of others only
}

// Sender is who said an item: the device proved it, and that it speaks for the account.
type Sender struct {
	Account, Device key.Public
	Own             bool // another device of our own account
}

// Handler takes an item of a kind that it was registered for, after it is stored. It is called once for each, one at a time and in
// order per sender; after an error or a crash again, so it must be idempotent.
type Handler func(ctx context.Context, from Sender, item envelope.Item) error

// Mesh is what the engine needs of the node beside it.
type Mesh interface {
	// Dial opens a stream to a service of a node met at a place: by the home node, or on a visit.
	Dial(ctx context.Context, at envelope.Place, node key.Public, service string, header []byte) (net.Conn, error)
	// Accept waits for a stream. The key is that of the node at the other end, which on a visit is not the device's own.
	Accept(ctx context.Context, service string) (net.Conn, error)
}

// Finder is a Mesh that knows which nodes of the home network offer the messenger: devices of an account of its cluster are
// among them.
type Finder interface {
	Near(cluster key.Public) []key.Public // none of another network
}

// Watcher is a Mesh that tells when nodes come and go; the engine then tries those at once that it has something for.
type Watcher interface {
	// Online returns nodes of the home network that are known to be there; Changed closes when that changes.
	Online() (nodes []key.Public, changed <-chan struct{})
}

// Config of an Engine.
type Config struct {
	Key     *key.Private // of the node
	Account key.Public   // zero: the node itself; else a cluster key
	// Statements prove that the node speaks for a cluster account: admin list, certificate. Called when a card is made.
	Statements func() [][]byte
	Name       string                // in the card
	Place      func() envelope.Place // where this device is met; called when a card is made
	Mailboxes  []envelope.Mailbox    // that others may leave envelopes at, beside the other devices of the account
	KeepFor    bool                  // keep envelopes for confirmed contacts' devices too
	Policy     Policy                // for strangers
	Discreet   bool                  // tell nobody what was read here

	Store   *store.KV
	Prekeys *prekeys.Ring
	Salt    [32]byte // makes the ids in the store's keys tell nothing; the store's own key will do
	Quota   int64    // bytes of the store; DefaultQuota if 0
	Files   Filing

	Mesh Mesh
	Log  *slog.Logger
	Now  func() member.Instant // by default the box's clock
}

// DefaultQuota bounds the store of a router; other boxes have room for more.
const DefaultQuota = 4 << 20

// Filing says what is done with files that are offered.
type Filing struct {
	Folder string // where they go; empty: none are taken
	// Auto takes files of confirmed contacts up to so many bytes without asking.
	Auto int64
	// Max refuses what is larger.
	Max int64
	// Free tells the bytes free where a folder lies; nil: nobody looks. Spare is what must stay so.
	Free  func(folder string) (uint64, error)
	Spare int64
}

// Status is what the engine shows of itself.
type Status struct {
	Account key.Public `json:"account"`
	Device  key.Public `json:"device"`
	Card    uint64     `json:"card"`
	Links   int        `json:"links"`
	Queue   int        `json:"queue"` // items not answered
	Store   int64      `json:"store_bytes"`
	Quota   int64      `json:"quota_bytes"`
	Mailbox int64      `json:"mailbox_bytes"` // kept for others
	Writes  uint64     `json:"writes"`
	PerHour float64    `json:"writes_per_hour"`

	Counters map[string]uint64 `json:"counters"`
}

// FileState is how far a file has come.
type FileState string

// The states of files.
const (
	FileOffered  FileState = "offered" // nobody has said yes
	FileMoving   FileState = "moving"
	FileDone     FileState = "done"
	FileRefused  FileState = "refused"
	FileFailed   FileState = "failed"
	FileCanceled FileState = "canceled"
)

// File is one that goes or comes.
type File struct {
	ID      MessageID  `json:"-"` // of the message that offered it
	Account key.Public `json:"account"`
	Out     bool       `json:"out,omitempty"`
	Name    string     `json:"name"`
	Path    string     `json:"path,omitempty"` // here
	Size    int64      `json:"size"`
	Done    int64      `json:"done"`
	Stored  int64      `json:"stored,omitempty"` // bytes of it that mailboxes keep for them
	State   FileState  `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Since   time.Time  `json:"since"`
}
