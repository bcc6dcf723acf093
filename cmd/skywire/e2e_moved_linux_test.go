package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestE2EStreamTCP: proxied connections whose streams went over to the kernel's TCP behave as those on QUIC: half-close,
// resets, trickles, bulk both ways. What the port for a move has to fear is tried too, and an end of the vpn below it.
func TestE2EStreamTCP(t *testing.T) {
	w := newWorld(t, "strt")
	w.boxes("a", "b")
	w.must(w.lab.Wire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24")))
	w.plain("web")
	w.must(w.lab.Wire(w.end("b", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")))
	w.node("a", "--streams", "tcp")
	w.node("b", "--streams", "tcp", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	w.pings("a", w.address("b"))
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--allow-private")
	w.start("a", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"])
	w.oddServer("web", "10.50.0.2:7000")
	w.wait("proxy", func(ctx context.Context) error {
		_, err := w.box["a"].Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return w.alive(w.run["a socks"], err)
	})
	var before streamStatus
	for _, c := range []struct {
		name string
		long bool // enough for it to have moved for sure
		try  func(t *testing.T, c net.Conn)
	}{
		{"half close", false, func(t *testing.T, c net.Conn) { halfClose(t, c, 1<<20) }},
		{"reset", false, func(t *testing.T, c net.Conn) { reset(t, c) }},
		{"trickle", true, func(t *testing.T, c net.Conn) { trickle(t, c) }},
		{"upload", true, func(t *testing.T, c net.Conn) { upload(t, c, 32<<20) }},
		{"download", true, func(t *testing.T, c net.Conn) { download(t, c, 100<<20) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := w.through("10.50.0.2:7000", 1)[0]
			defer conn.Close()
			c.try(t, conn)
			after := w.streams("a")
			if c.long && after.Moved <= before.Moved {
				t.Errorf("the stream did not move: %+v", after)
			}
			before = after
		})
	}
	w.wait("all streams end", func(context.Context) error {
		for _, box := range []string{"a", "b"} {
			if s := w.streams(box); s.OnTCP != 0 {
				return fmt.Errorf("%s: %+v", box, s)
			}
		}
		return nil
	})
	w.checkMoved()
	w.stopAll("socks", "node")
}

type streamStatus struct {
	OnTCP     int    `json:"on_tcp"`
	Moved     uint64 `json:"moved_total"`
	Strangers uint64 `json:"strangers_total"`
}

func (w *world) streams(box string) streamStatus {
	w.t.Helper()
	var s struct{ Streams streamStatus }
	w.must(w.box[box].SkywireJSON(w.t.Context(), &s, "node", "status"))
	return s.Streams
}

// checkMoved looks at an open stream from outside: its socket is on the device alone, no port is open any more, its bytes
// pass the node in pipes, and it ends when the vpn does.
func (w *world) checkMoved() {
	w.t.Helper()
	c := w.through("10.50.0.2:7000", 1)[0]
	if _, err := c.Write([]byte{askEcho}); err != nil {
		w.t.Fatal(err)
	}
	w.wait("the stream is on TCP", func(context.Context) error {
		if s := w.streams("a"); s.OnTCP == 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	for range 3 { // each end goes over with its next bytes, then splices
		want := bytes.Repeat([]byte("spliced "), 1000)
		got := make([]byte, len(want))
		_, err := c.Write(want)
		w.must(err)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			w.t.Fatalf("echoed otherwise: %v", err)
		}
	}
	sockets := w.exec("a", "ss", "-Htnp", "src", "["+w.address("a")+"]")
	if !strings.Contains(sockets, "%skywire0") || strings.Contains(w.exec("a", "ss", "-Htnl"), w.address("a")) ||
		strings.Contains(w.exec("b", "ss", "-Htnl"), w.address("b")) {
		w.t.Errorf("sockets: %s", sockets)
	}
	pipes := 0
	fds := fmt.Sprintf("/proc/%d/fd", w.run["a node"].PID())
	list, err := os.ReadDir(fds)
	w.must(err)
	for _, f := range list {
		if to, _ := os.Readlink(fds + "/" + f.Name()); strings.HasPrefix(to, "pipe:") {
			pipes++
		}
	}
	if pipes < 4 {
		w.t.Errorf("%d ends of pipes: nothing is spliced", pipes)
	}
	w.must(w.run["a vpn"].Stop(10 * time.Second))
	w.must(c.SetReadDeadline(time.Now().Add(patience)))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		w.t.Errorf("%d bytes after the vpn has ended", n)
	}
}
