package messenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// SocketName is the messenger's socket inside the run directory.
const SocketName = "messenger.sock"

// talker is what the socket asks of an *Engine.
type talker interface {
	Send(ctx context.Context, o Outgoing) (MessageID, error)
	Cancel(id MessageID) error
	Message(id MessageID) (Message, error)
	Messages(ctx context.Context, q Query) ([]Message, error)
	Changed() <-chan struct{}
	Wait(ctx context.Context, id MessageID, s State) (Message, error)
	MarkRead(ids []MessageID) error
	Import(ctx context.Context, all []Message) (int, error)
	Book(f func(*Book, time.Time) error) error
	Word(account key.Public, at envelope.Place, body []byte) error
	AddLink(l *envelope.Link, name, hello string) (Contact, error)
	Invite(name string, uses int, life time.Duration) (*envelope.Link, error)
	SendFile(ctx context.Context, to key.Public, path string) (File, error)
	AcceptFile(id MessageID) error
	RefuseFile(id MessageID) error
	Files() ([]File, error)
	Status() Status
	Seen() map[key.Public]time.Time
	Devices(of key.Public) []Device
	Meet(account key.Public, at envelope.Place) error
}

// Method answers one method of the socket.
type Method func(ctx context.Context, params json.RawMessage) (any, error)

// ServerConfig is the world of a Server.
type ServerConfig struct {
	Engine talker
	// Account is ours, Claim what we call ourselves; Place says where we are met first by one who has our link.
	Account key.Public
	Claim   string
	Place   func() envelope.Place
	// Resolve turns a word that is no contact's name into an account: a key, or a name that the node knows. Petname tells the node
	// our name for a key, "" takes it back; nil: nobody is told.
	Resolve func(ctx context.Context, word string) (key.Public, error)
	Petname func(ctx context.Context, name string, k key.Public) error
	Audit   *Audit
	Calls   *Calls
	Ledger  *Statements
	// Daemon adds to the status what the daemon knows of itself; nil: nothing.
	Daemon func(s *DaemonStatus)
	// Presence says when accounts were seen; nil: that is not known.
	Presence *Presence
	// More are methods of others (peerings), by name.
	More map[string]Method
	Log  *slog.Logger
}

// Server answers at the messenger's socket.
type Server struct {
	c       ServerConfig
	methods map[string]Method
}

// NewServer makes the table of methods.
func NewServer(c ServerConfig) *Server {
	s := &Server{c: c, methods: map[string]Method{}}
	for _, table := range []map[string]Method{s.messageMethods(), s.contactMethods(), s.fileMethods(), s.callMethods(), s.statementMethods(), s.groupMethods(), c.More} {
		for name, m := range table {
			s.methods[name] = m
		}
	}
	return s
}

// Listen opens the socket, which only the user that runs the messenger and root may use.
func Listen(run string) (net.Listener, error) {
	return signal.Listen(filepath.Join(run, SocketName), 0o600)
}

// Serve answers at l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return signal.Serve(ctx, l, func(c *signal.Conn) signal.Handler {
		// The mode of the file keeps others out; this also keeps out who got hold of a descriptor.
		if cred, err := c.Peer(); err == nil && cred.UID != 0 && int(cred.UID) != os.Geteuid() {
			s.c.Log.Warn("connection refused", "uid", cred.UID, "pid", cred.PID)
			return nil
		}
		return s.answer
	})
}

func (s *Server) answer(ctx context.Context, r *signal.Request) (any, error) {
	r.Drop()
	if r.Method == "msg.tail" {
		return nil, s.tail(ctx, r)
	}
	m := s.methods[r.Method]
	if m == nil {
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	return m(ctx, r.Params)
}

// bind makes a Method of a function with parameters of its own, which are read strictly.
func bind[P any](f func(ctx context.Context, p P) (any, error)) Method {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var p P
		if err := (&signal.Request{Method: "parameters", Params: raw}).Bind(&p); err != nil {
			return nil, err
		}
		return f(ctx, p)
	}
}

// account finds who a word names: a contact by our name for it, a key, or whom the node knows by that name.
func (s *Server) account(ctx context.Context, word string) (k key.Public, err error) {
	if word == "" {
		return k, signal.Errorf(signal.ErrUsage, "whom?")
	}
	if k, err := key.Parse(word); err == nil {
		return k, nil
	}
	found := false
	err = s.c.Engine.Book(func(b *Book, _ time.Time) error {
		k, found = b.Find(strings.TrimSuffix(word, ".mesh"))
		return nil
	})
	if found || err != nil {
		return k, err
	}
	if k, err = s.c.Resolve(ctx, word); err != nil {
		return k, fmt.Errorf("%q is no contact and %w", word, err)
	}
	return k, nil
}

// mayAddress refuses what can't go now, with the reason; what waits for their word only is sent. To a contact whose key has
// changed nothing new is said; what lies in the queue waits.
func (s *Server) mayAddress(to key.Public) error {
	var may error
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		may = b.MaySend(to)
		return nil
	})
	if err != nil {
		return err
	}
	if to == s.c.Account || may == nil || errors.Is(may, ErrTheirTurn) {
		return nil
	}
	return may
}

// ID is who we are, and the link by which others ask to be contacts.
type ID struct {
	Account key.Public `json:"account"`
	Device  key.Public `json:"device"`
	Name    string     `json:"name,omitempty"`
	Link    string     `json:"link"`
	QR      string     `json:"qr"` // the link in the letters that make the smallest code
}

func (s *Server) id(context.Context, struct{}) (any, error) {
	l := envelope.Link{Account: s.c.Account, Place: s.c.Place()}
	return ID{s.c.Account, s.c.Engine.Status().Device, s.c.Claim, l.Text(), l.QRText()}, nil
}
