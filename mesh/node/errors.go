package node

import (
	"errors"

	"skywire/signal"
)

// Errors that reach people by node.sock carry signal's stable names, and so their exit status.
var (
	// ErrNotAdmitted is returned when a key is on no list of this node.
	ErrNotAdmitted = signal.Errorf(signal.ErrRefused, "key is not admitted here (run with --open or --allow KEY)")
	// ErrNotMember is returned when a key has no right here: it has no certificate of the cluster, it ran out, or it was revoked.
	ErrNotMember = signal.Errorf(signal.ErrRefused, "not a member")
	// ErrTooManyGuests is returned when as many neighbours as there is room for are no members (yet).
	ErrTooManyGuests = signal.Errorf(signal.ErrBusy, "too many guests")
	// ErrNoCluster is returned when a node that belongs to no cluster is asked about one.
	ErrNoCluster = signal.Errorf(signal.ErrUsage, "this node belongs to no cluster (skywire node join INVITE, or skywire manager cluster create)")
	// ErrOtherCluster is returned when a node belongs to another cluster already.
	ErrOtherCluster = signal.Errorf(signal.ErrRefused, "this node belongs to another cluster; leave it first: skywire node leave")
	// ErrSelf is returned when a node is asked for a session with itself.
	ErrSelf = signal.Errorf(signal.ErrUsage, "this is our own key")
	// ErrUnreachable is returned when no path to a node could be set up.
	ErrUnreachable = signal.Errorf(signal.ErrUnreachable, "no path to the node")
	// ErrTimeout is returned when a node did not answer.
	ErrTimeout = signal.Errorf(signal.ErrTimeout, "no answer")
	// ErrTooManySessions is returned when the session table is full.
	ErrTooManySessions = signal.Errorf(signal.ErrBusy, "too many sessions")
	// ErrBusy is returned when too many requests of a kind are under way.
	ErrBusy = signal.Errorf(signal.ErrBusy, "too many requests at once")
	// ErrUnknown is returned when a name stands for no node that is known here.
	ErrUnknown = signal.Errorf(signal.ErrNotFound, "no such node")
)

// ErrClosed is returned when the node has ended.
var ErrClosed = errors.New("node has ended")

// errNoIssuer is returned when no neighbour knows a way to a node that renews certificates.
var errNoIssuer = errors.New("no way to a manager that could renew our certificate")

// errNoFamily is returned when a peer has only addresses that no socket of this node can send to.
var errNoFamily = errors.New("it has no address of the kind that this node listens on (IPv4 or IPv6)")
