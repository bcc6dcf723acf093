package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/node/api"
)

// TestUnresolvedPeers wants a peer whose name leads nowhere among the peers, with the reason, as long as that is so.
func TestUnresolvedPeers(t *testing.T) {
	t.Parallel()
	known, other := key.Public{1}, key.Public{2}
	gone := errors.New("lookup home.example: no such host")
	for _, tc := range []struct {
		name string
		peer Peer
		err  error
		rows []api.Peer
		want []api.Peer
	}{
		{"resolves", Peer{Key: known, Addr: "home.example:1"}, nil, nil, nil},
		{
			"never resolved",
			Peer{Key: known, Addr: "home.example:1"},
			gone,
			[]api.Peer{{Key: other, State: "up"}},
			[]api.Peer{{Key: other, State: "up"}, {Key: known, State: "dialing", Carrier: "udp", Endpoint: "udp://home.example:1", Reason: gone.Error()}},
		},
		{
			"no key given",
			Peer{Addr: "home.example:1"},
			gone, nil,
			[]api.Peer{{State: "dialing", Carrier: "udp", Endpoint: "udp://home.example:1", Reason: gone.Error()}},
		},
		{
			"resolved once, link down",
			Peer{Key: known, Addr: "home.example:1"},
			gone,
			[]api.Peer{{Key: known, State: "dialing", Endpoint: "udp://192.0.2.1:1", Reason: "no answer"}},
			[]api.Peer{{Key: known, State: "dialing", Endpoint: "udp://192.0.2.1:1", Reason: gone.Error()}},
		},
		{
			"resolved once, link up",
			Peer{Key: known, Addr: "home.example:1"},
			gone,
			[]api.Peer{{Key: known, State: "up", Endpoint: "udp://192.0.2.1:1"}},
			[]api.Peer{{Key: known, State: "up", Endpoint: "udp://192.0.2.1:1"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newResolver(&Node{cfg: Config{Peers: []Peer{tc.peer}}, log: slog.New(slog.DiscardHandler)})
			r.note(tc.peer, gone)
			r.note(tc.peer, tc.err)
			got := addUnresolved(tc.rows, r)
			if len(got) != len(tc.want) {
				t.Fatalf("%+v, want %+v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("row %d: %+v, want %+v", i, got[i], tc.want[i])
				}
			}
		})
	}
}

// TestDialTellsWhy dials a name that cannot exist (RFC 6761).
func TestDialTellsWhy(t *testing.T) {
	t.Parallel()
	r := newResolver(&Node{log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no resolver is waited for
	if _, err := r.dial(ctx, Peer{Addr: "nobody.invalid:7667"}, nil); err == nil {
		t.Error("a name that cannot exist: no error")
	}
	if _, err := r.dial(t.Context(), Peer{Addr: "127.0.0.1:7667"}, nil); !errors.Is(err, errNoFamily) {
		t.Errorf("a node without a socket for the address: %v, want %v", err, errNoFamily)
	}
}
