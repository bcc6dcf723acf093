package node

import (
	"net/netip"
	"runtime"
	"testing"

	"skywire/mesh/forward"
	"skywire/mesh/link/udp"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	auto := 1
	if n := runtime.NumCPU(); n > 2 {
		auto = min(n, mostLoops)
	}
	for _, tt := range []struct {
		name   string
		c      Config
		loops  int
		small  bool
		inbox  int
		buffer int
	}{
		{"as it is", Config{Memory: 1 << 30}, auto, false, inboxSize, 0},
		{"a router", Config{Memory: 64 << 20, Loops: 1}, 1, true, smallInbox, smallSocket},
		{"a router with two loops", Config{Memory: 128 << 20, Loops: 2}, 2, true, smallInbox, smallSocket / 2},
		{"the most", Config{Memory: 8 << 30, Loops: forward.MaxLoops}, forward.MaxLoops, false, inboxSize, 0},
	} {
		asked := 0
		tt.c.Processors = func(n int) int { asked = n; return 9 }
		m := newMachine(&tt.c)
		if m.loops != tt.loops || m.small() != tt.small || m.inbox != tt.inbox || m.socketBuffer != tt.buffer {
			t.Errorf("%s: got %+v", tt.name, m)
		}
		if asked != tt.loops || m.processors != 9 {
			t.Errorf("%s: asked for %d processors for %d loops, noted %d", tt.name, asked, tt.loops, m.processors)
		}
	}
	if m := newMachine(&Config{}); m.memory == 0 || m.processors != 0 {
		t.Errorf("without settings: %+v", m)
	}
	for _, loops := range []int{-1, forward.MaxLoops + 1} {
		c := Config{State: "s", Run: "r", Loops: loops}
		if c.Validate() == nil {
			t.Errorf("%d loops are taken", loops)
		}
	}
}

// TestListenPorts takes the ports in a row that are free, and whole rows where the system may choose.
func TestListenPorts(t *testing.T) {
	t.Parallel()
	here := netip.MustParseAddrPort("127.0.0.1:0")
	all, err := listenPorts(udp.Config{Addr: here}, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSockets(all)
	if len(all) != 4 {
		t.Fatalf("%d sockets, want 4", len(all))
	}
	for i, s := range all {
		if s.Addr().Port() != all[0].Addr().Port()+uint16(i) {
			t.Errorf("socket %d has %v, the first %v", i, s.Addr(), all[0].Addr())
		}
	}
	if _, err := listenPorts(udp.Config{Addr: all[3].Addr()}, 4); err == nil {
		t.Error("a port that is taken was given")
	}
	if err := all[1].Close(); err != nil { // one free port below two that are taken
		t.Fatal(err)
	}
	some, err := listenPorts(udp.Config{Addr: netip.AddrPortFrom(here.Addr(), all[0].Addr().Port()+1)}, 4)
	if err != nil || len(some) != 1 {
		t.Errorf("%d sockets, %v; want the one that is free", len(some), err)
	}
	_ = closeSockets(some)
	last, err := listenPorts(udp.Config{Addr: netip.AddrPortFrom(here.Addr(), 65535)}, 2)
	if err == nil && len(last) != 1 {
		t.Errorf("%d sockets from 65535 up", len(last))
	}
	_ = closeSockets(last)
}

func TestOwnSockets(t *testing.T) {
	t.Parallel()
	n := &Node{ports: 2, sockets: make([]*udp.Socket, 4)} // two addresses
	for loop, want := range [][]int{{0, 2}, {1, 3}, {}} {
		got := n.own(loop)
		if got == nil || len(got) != len(want) {
			t.Fatalf("loop %d has %v, want %v", loop, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("loop %d has %v, want %v", loop, got, want)
			}
		}
	}
}
