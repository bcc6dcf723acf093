package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// TestE2EFlood sends two thousand random and mutated datagrams a second to every listening port while traffic runs: they
// are counted, memory stays flat, the traffic does not notice.
func TestE2EFlood(t *testing.T) {
	w := newWorld(t, "flood")
	w.chain("a", "r1", "b")
	w.attacker()
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	real := w.datagrams(addr)
	drops, rss := number(w.status("r1")["drops"]), w.run["r1 node"].RSS()

	length := 6 * time.Second
	if full() {
		length = time.Minute
	}
	ping, err := w.box["a"].Start("ping", "ping", "-i0.02", "-q", "-w", fmt.Sprint(int(length.Seconds())), addr)
	w.must(err)
	sent := w.shower(real, length)
	ping.ExitCode()
	t.Logf("%d datagrams; %s", sent, lastLines(ping.Output(), 2))
	if !strings.Contains(ping.Output(), " 0% packet loss") && !strings.Contains(ping.Output(), " 0.") {
		t.Error("the flood cost packets")
	}
	after := w.run["r1 node"].RSS()
	t.Logf("resident memory of the relay: %.1f MB before, %.1f MB after", float64(rss)/1e6, float64(after)/1e6)
	if after > rss+8e6 {
		t.Error("memory grew")
	}
	if n := number(w.status("r1")["drops"]) - drops; n < float64(sent)/2 {
		t.Errorf("%d datagrams of junk, %.0f counted as dropped", sent, n)
	}
}

// attacker is a neighbour of r1 on a wire of its own.
func (w *world) attacker() {
	w.t.Helper()
	w.plain("evil")
	w.must(w.lab.Wire(w.end("r1", "evil", "10.66.0.1/16"), w.end("evil", "eth0", "10.66.0.2/16")))
}

// datagrams records real ones between a and r1.
func (w *world) datagrams(addr string) [][]byte {
	w.t.Helper()
	tape := w.record("r1")
	w.exec("a", "ping", "-c30", "-i0.01", "-q", addr)
	var all [][]byte
	for _, p := range tape.Stop() {
		if len(p) > 28 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP {
			all = append(all, p[28:])
		}
	}
	if len(all) < 20 {
		w.t.Fatalf("only %d datagrams in the capture", len(all))
	}
	return all
}

// shower sends junk from evil to the node of r1 for a time: a third random, a third with a right type byte, a third real
// datagrams with a few bits turned.
func (w *world) shower(real [][]byte, length time.Duration) (sent int) {
	w.t.Helper()
	c := w.udp("evil", "10.66.0.1:"+meshPort)
	r := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
		for range 10 {
			b := junk(r, real)
			if _, err := c.Write(b); err == nil {
				sent++
			}
		}
	}
	return sent
}

func junk(r *rand.Rand, real [][]byte) []byte {
	b := make([]byte, r.IntN(1400))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	switch r.IntN(3) {
	case 1:
		if len(b) > 0 {
			b[0] = 0x11 + byte(r.IntN(10))
		}
	case 2:
		b = append(b[:0], real[r.IntN(len(real))]...)
		for range 1 + r.IntN(4) {
			if len(b) > 0 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
		}
	}
	return b
}

// TestE2EForgedHandshakes sends ten thousand handshakes with a right MAC from forged addresses: the node answers with
// cookies and keeps nothing; a real neighbour still gets in.
func TestE2EForgedHandshakes(t *testing.T) {
	w := newWorld(t, "forged")
	w.chain("a", "r1")
	w.attacker()
	w.reach("a", "r1")
	to, err := key.Parse(w.key["r1"])
	w.must(err)
	before := w.status("r1")
	rss := w.run["r1 node"].RSS()
	fd := w.raw("evil")
	w.forge(fd, to, 10_000)
	w.reach("a", "r1")
	after := w.status("r1")
	if number(after["links"]) > number(before["links"]) {
		t.Errorf("links: %v before, %v after", before["links"], after["links"])
	}
	grown := w.run["r1 node"].RSS()
	t.Logf("resident memory: %.1f MB before, %.1f MB after; drops %v", float64(rss)/1e6, float64(grown)/1e6, after["drops"])
	if grown > rss+8e6 {
		t.Error("memory grew")
	}
	// A new neighbour gets in while the flood goes on.
	w.boxes("c")
	w.must(w.lab.Wire(w.end("r1", "c", "10.67.0.1/24"), w.end("c", "r1", "10.67.0.2/24")))
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.forge(fd, to, 500)
		}
	}()
	w.node("c", "--peer", w.peer("r1", "10.67.0.1"))
	w.reach("c", "r1")
	cancel()
	<-done
}

// forge sends n handshakes to r1 from addresses of evil's network that nobody has.
func (w *world) forge(fd int, to key.Public, n int) {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	dst := netip.MustParseAddrPort("10.66.0.1:" + meshPort)
	for range n {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 66, byte(1 + r.IntN(250)), byte(1 + r.IntN(250))}), uint16(1024+r.IntN(60000)))
		init, err := forgedInit(r, to)
		if err == nil {
			err = unix.Sendto(fd, ipv4UDP(from, dst, init), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()})
		}
		if err != nil && err != unix.ENOBUFS && err != unix.EAGAIN {
			w.t.Error(err)
			return
		}
	}
}

// ipv4UDP makes a packet; a zero UDP checksum means none, and the kernel fills in that of the IP header.
func ipv4UDP(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], from.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	return append(b, payload...)
}

// forgedInit is a handshake from a stranger's fresh key: right in every byte, so that only its address is a lie.
func forgedInit(r *rand.Rand, to key.Public) ([]byte, error) {
	id, err := key.Generate()
	if err != nil {
		return nil, err
	}
	c := session.Config{Identity: id, Network: key.Open(), Purpose: session.Link}
	_, noise, err := session.Initiate(c, to, wire.Payload{
		MinVersion: wire.Version, MaxVersion: wire.Version, Ciphers: 3, Key: 1, Ports: 1, MTU: 1400, Network: key.Open(), Boot: r.Uint64(),
	})
	if err != nil {
		return nil, err
	}
	return session.NewJar(to).Init(0, r.Uint32(), noise), nil
}
