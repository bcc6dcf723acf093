package tracker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/signal"
)

// TestOneNodeDoesNotTakeAllStreams: nor does one that says nothing keep those it has.
func TestOneNodeDoesNotTakeAllStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{streams: make(chan io.ReadWriteCloser), peer: identity(t).Public()}
		tr, err := New(Config{Network: key.Open(), Log: quiet(), Connect: func(context.Context) (Node, error) { return n, nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := tr.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		open := func() net.Conn {
			here, there := net.Pipe()
			n.streams <- there
			return here
		}
		ended := func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		var mine []net.Conn
		for range maxPerNode {
			mine = append(mine, open())
		}
		if !ended(open()) {
			t.Error("one more stream of the same node is taken")
		}
		for i, c := range mine {
			if ended(c) {
				t.Errorf("stream %d was ended", i)
			}
		}
		time.Sleep(firstLine)
		for i, c := range mine {
			if !ended(c) {
				t.Errorf("stream %d says nothing and is kept", i)
			}
		}
		c := NewClient(open())
		if _, err := c.List(t.Context(), ""); err != nil {
			t.Errorf("after they ended: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

// TestStrangersRecordsMakeRoom: anybody can sign with keys made for the purpose; that must not keep others out for hours.
func TestStrangersRecordsMakeRoom(t *testing.T) {
	t.Parallel()
	r, now := NewRegistry(key.Open()), time.Now()
	for i := range MaxNodes {
		r.heard[key.Public{byte(i >> 8), byte(i), 1}] = heard{number: 1, first: now.Add(time.Duration(i) * time.Millisecond)}
	}
	p := identity(t)
	if err := r.PutRecord(now.Add(time.Minute), record(p, 1, route.Service{Name: "vpn"})); err != nil {
		t.Errorf("a node's first record: %v", err)
	}
	if _, kept := r.heard[key.Public{0, 0, 1}]; kept || len(r.heard) != MaxNodes {
		t.Errorf("%d numbers kept, the oldest %v", len(r.heard), kept)
	}
}

// TestListsOverTCP: each costs work and a megabyte, so strangers get so many a second.
func TestListsOverTCP(t *testing.T) {
	t.Parallel()
	addr, _ := listen(t)
	c, err := DialTCP(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	busy := false
	for range 20 * maxLists {
		_, err := c.List(t.Context(), "")
		if busy = errors.Is(err, signal.ErrBusy); busy {
			break
		}
	}
	if !busy {
		t.Error("as many lists as somebody likes")
	}
}

// TestHostileTracker: a tracker that checks nothing does not reach the terminal of who asks it.
func TestHostileTracker(t *testing.T) {
	t.Parallel()
	_, err := Pages(func(_ ListParams, page *[]Entry) error {
		*page = []Entry{{Service: Service{Name: "good"}}, {Service: Service{Name: "bad", Meta: "\x1b[2J"}}}
		return nil
	}, "")
	if !errors.Is(err, ErrService) {
		t.Errorf("got %v", err)
	}
}
