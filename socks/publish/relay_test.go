package publish_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"skywire/socks/publish"
)

// TestRelay: each program has a connection of its own, answers find their way back, and a program that is dropped gets
// another connection with its next packet.
func TestRelay(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], from)
		}
	}()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var dials atomic.Int32
	var done atomic.Int32
	opened := make(chan net.Conn, 8)
	go publish.Relay(t.Context(), socket, func(ctx context.Context, _ net.Addr) (net.Conn, func(), error) {
		dials.Add(1)
		var d net.Dialer
		c, err := d.DialContext(ctx, "udp", server.LocalAddr().String())
		if err == nil {
			opened <- c
		}
		return c, func() { done.Add(1) }, err
	})
	ask := func(c net.Conn, text string) string {
		b := make([]byte, 100)
		for end := time.Now().Add(soon); time.Now().Before(end); { // the first ones may fall between two connections
			c.Write([]byte(text))
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if n, err := c.Read(b); err == nil {
				return string(b[:n])
			}
		}
		return "nothing"
	}
	var programs [2]net.Conn
	for i := range programs {
		if programs[i], err = net.Dial("udp", socket.LocalAddr().String()); err != nil {
			t.Fatal(err)
		}
		defer programs[i].Close()
	}
	for i, c := range programs {
		want := string(rune('a' + i))
		if got := ask(c, want); got != want {
			t.Errorf("program %d: %q, want %q", i, got, want)
		}
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d connections for two programs", n)
	}
	(<-opened).Close() // as when a grant is taken back
	if got := ask(programs[0], "again"); got != "again" && got != "a" {
		t.Errorf("after the drop: %q", got)
	}
	if done.Load() != 1 {
		t.Errorf("%d connections ended, want 1", done.Load())
	}
}
