package forward

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// scriptPoller reports what a test tells it to, and ends the loop when the script does.
type scriptPoller struct {
	script  []func() scriptEvent
	event   scriptEvent
	end     context.CancelFunc
	watched map[int]string
}

type scriptEvent struct {
	id                  int
	read, write, broken bool
}

func (p *scriptPoller) Add(id int, _ Source) error {
	p.watched[id] = "r"
	return nil
}

func (p *scriptPoller) Interest(id int, _ Source, read, write bool) error {
	p.watched[id] = ""
	if read {
		p.watched[id] += "r"
	}
	if write {
		p.watched[id] += "w"
	}
	return nil
}

func (p *scriptPoller) Remove(s Source) error {
	for id := range p.watched {
		if s.FD() == id {
			delete(p.watched, id)
		}
	}
	return nil
}

func (p *scriptPoller) Wait() (int, error) {
	if len(p.script) == 0 {
		p.end()
		return 0, nil
	}
	p.event = p.script[0]()
	p.script = p.script[1:]
	return 1, nil
}

func (p *scriptPoller) Event(int) (int, bool, bool, bool) {
	return p.event.id, p.event.read, p.event.write, p.event.broken
}
func (p *scriptPoller) Wake()        {}
func (p *scriptPoller) Close() error { return nil }

// scriptSocket has as many datagrams as it is told, and may be full.
type scriptSocket struct {
	waiting  int
	size     int
	received int
	sent     int
	full     bool
	err      error
}

func (s *scriptSocket) FD() int { return 0 }
func (s *scriptSocket) Receive(b []byte) (Arrival, error) {
	if s.err != nil {
		return Arrival{}, s.err
	}
	if s.waiting == 0 {
		return Arrival{}, syscall.EAGAIN
	}
	s.waiting--
	s.received++
	copy(b, "junk")
	return Arrival{N: s.size, Seg: s.size, From: netip.MustParseAddrPort("192.0.2.9:1")}, nil
}

func (s *scriptSocket) Send(netip.AddrPort, []byte, int, uint8) error {
	if s.full {
		return syscall.EAGAIN
	}
	s.sent++
	return nil
}

// scriptTUN always has another packet, until it breaks.
type scriptTUN struct {
	quietTUN
	id     int
	packet []byte
	given  bool
	read   int
	err    error
}

func (t *scriptTUN) FD() int { return t.id }
func (t *scriptTUN) Receive() (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.read++
	t.given = false
	return 1, nil
}

func (t *scriptTUN) Packet(b []byte) (int, bool, bool) {
	if t.given {
		return 0, false, false
	}
	t.given = true
	return copy(b, t.packet), false, true
}

// TestLoopRounds runs a loop over a script: bounds of a round, the pause when a socket is full, a device that is deleted,
// calls that come in between.
func TestLoopRounds(t *testing.T) {
	t.Parallel()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	ctx, cancel := context.WithCancel(t.Context())
	poller := &scriptPoller{end: cancel, watched: map[int]string{}}
	socket := &scriptSocket{waiting: 1000, size: 60000}
	tun := &scriptTUN{id: tunIDs + 1, packet: p.packet(500, 1)}
	var gone error
	l, err := NewLoop(LoopConfig{
		Plane: p.a.plane, Poller: poller, Sockets: []Socket{socket}, Memory: 1 << 30,
		Now: func() time.Duration { return f.now }, Detached: func(_ TUN, err error) { gone = err },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Attach(tun); err != nil { // before Run it is done at once
		t.Fatal(err)
	}
	want := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	read, id := scriptEvent{id: 0, read: true}, tunIDs+1
	poller.script = []func() scriptEvent{
		func() scriptEvent { return read },
		func() scriptEvent {
			want("trains of a round", socket.received, 4)
			socket.received, socket.size = 0, 4
			return read
		},
		func() scriptEvent {
			want("datagrams of a round", socket.received, roundReads)
			return scriptEvent{id: id, read: true}
		},
		func() scriptEvent {
			want("packets of a round", tun.read, roundReads)
			want("sent as one train", socket.sent, 1)
			socket.full = true
			return scriptEvent{id: id, read: true}
		},
		func() scriptEvent {
			want("tun while the socket is full", poller.watched[id], "")
			want("socket while it is full", poller.watched[0], "rw")
			socket.full = false
			return scriptEvent{id: 0, write: true}
		},
		func() scriptEvent {
			want("tun afterwards", poller.watched[id], "r")
			want("socket afterwards", poller.watched[0], "r")
			socket.err = syscall.ECONNREFUSED // a pending error is no end
			return scriptEvent{id: 0, broken: true}
		},
		func() scriptEvent {
			want("socket after an error", poller.watched[0], "r")
			socket.err = nil
			tun.err = syscall.EPIPE
			return scriptEvent{id: id, broken: true}
		},
		func() scriptEvent {
			want("deleted device", errors.Is(gone, syscall.EPIPE), true)
			_, watched := poller.watched[id]
			want("deleted device watched", watched, false)
			want("worker's tun", l.worker.tun, nil)
			return scriptEvent{id: id, read: true} // a late event of what is gone
		},
	}
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	want("script done", len(poller.script), 0)
	p.a.wantDrops(t, map[string]uint64{"type": 68, "socket_full": 64, "receive": 1})
	if err := l.Run(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("second Run: %v", err)
	}
}

func TestLoopSizes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		memory uint64
		most   int
	}{{64 << 20, 100 << 10}, {4 << 30, 200 << 10}} {
		p := New(Config{}, &upcalls{})
		l, err := NewLoop(LoopConfig{
			Plane: p, Poller: &scriptPoller{watched: map[int]string{}},
			Now: func() time.Duration { return 0 }, Memory: tt.memory,
		})
		if err != nil {
			t.Fatal(err)
		}
		n := len(l.packet) + len(l.worker.train.buf) + len(l.train)
		if n > tt.most {
			t.Errorf("%d MB of memory: %d bytes of buffers, want at most %d", tt.memory>>20, n, tt.most)
		}
	}
	if _, err := NewLoop(LoopConfig{}); err == nil {
		t.Error("a loop of nothing is made")
	}
}
