package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skywire/mesh/meshtest/emulator"
)

// impaired is a link that does everything at once; its last word is the MTU of the underlay.
func impaired(mtu int) emulator.Profile {
	return emulator.Profile{
		Delay: 10 * time.Millisecond, Jitter: 2 * time.Millisecond,
		Loss: 0.01, Reorder: 0.005, Duplicate: 0.005, MTU: mtu,
	}
}

// TestE2EImpair sends data over a link that loses, reorders, duplicates and delays, also one whose packets are small, and
// compares TCP through the mesh with TCP beside it on the same link at the same time.
func TestE2EImpair(t *testing.T) {
	for _, mtu := range []int{1500, 576} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			w := newWorld(t, "impair")
			addr := w.impairedPair(mtu)
			w.checkStream("a", "b", addr, 3<<20)
			w.checkDatagrams("a", "b", addr, 2000)
			// A few hundred losses decide a throughput: it is looked at again for longer as long as it seems low.
			var kernel, mesh float64
			race := w.race("a", "b", "10.1.0.2", addr)
			for range 6 {
				k, m := race.run(4 * time.Second)
				if kernel, mesh = kernel+k, mesh+m; mesh > 0.75*kernel {
					break
				}
			}
			t.Logf("TCP through the mesh has %.2f of the throughput beside it", mesh/kernel)
			if mesh < 0.6*kernel {
				t.Error("that is less than 0.6")
			}
		})
	}
}

// impairedPair makes two boxes with an impaired link and a vpn, and returns the mesh address of b.
func (w *world) impairedPair(mtu int) string {
	w.t.Helper()
	w.boxes("a", "b")
	way := impaired(mtu)
	_, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), way, way, 1)
	w.must(err)
	for _, b := range []string{"a", "b"} {
		// Reno is in every kernel, and what it makes of losses has no memory beyond the last.
		w.must(w.box[b].IP(fmt.Sprint("link set eth0 mtu ", mtu)), w.box[b].Sysctl("net.ipv4.tcp_congestion_control=reno"))
	}
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	w.pings("a", w.address("b"))
	return w.address("b")
}

// checkStream sends n random bytes over a TCP connection and wants the same to arrive.
func (w *world) checkStream(from, to, addr string, n int) {
	w.t.Helper()
	l := w.listen(to, "[::]:7001")
	sent := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(sent)
	got := make(chan []byte, 1)
	go func() { // ends with the connection or the listener
		c, err := l.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		b, _ := io.ReadAll(c)
		got <- b
	}()
	c := w.dial(from, net.JoinHostPort(addr, "7001"), 1)[0]
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, err := c.Write(sent)
	w.must(err, c.(*net.TCPConn).CloseWrite())
	if b := <-got; !bytes.Equal(b, sent) {
		w.t.Errorf("sent %d bytes, %d others arrived", len(sent), len(b))
	}
	w.must(c.Close(), l.Close())
}

// checkDatagrams sends n numbered datagrams of all sizes: each may be lost, but what arrives is whole, and arrives once.
func (w *world) checkDatagrams(from, to, addr string, n int) {
	w.t.Helper()
	var in net.PacketConn
	w.must(w.box[to].Enter(func() (err error) {
		in, err = net.ListenPacket("udp", "[::]:7002")
		return err
	}))
	defer in.Close()
	out := w.udp(from, net.JoinHostPort(addr, "7002"))
	go func() { // ends by itself, before the reader's deadline
		for i := range n {
			_, _ = out.Write(datagram(i))
			if i%8 == 0 {
				<-time.After(time.Millisecond) // the socket's buffer is not what is tested
			}
		}
	}()
	seen := make([]int, n)
	buf, whole := make([]byte, 2048), 0
	for whole < n {
		_ = in.SetReadDeadline(time.Now().Add(2 * time.Second))
		m, _, err := in.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		w.must(err)
		i := n
		if m >= 4 {
			i = int(binary.BigEndian.Uint32(buf))
		}
		if i >= n || !bytes.Equal(buf[:m], datagram(i)) {
			w.t.Fatalf("a datagram of %d bytes arrived that was not sent", m)
		}
		if seen[i]++; seen[i] > 1 {
			w.t.Errorf("datagram %d arrived again", i)
		}
		whole++
	}
	if whole < n*9/10 {
		w.t.Errorf("%d of %d datagrams arrived", whole, n)
	}
}

// datagram is number i, whose size and content follow from i.
func datagram(i int) []byte {
	b := make([]byte, 4+i*7%1190)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b[4:])
	binary.BigEndian.PutUint32(b, uint32(i))
	return b
}

// race has connections on two ways between the same boxes that send at the same time, so that both see the same machine.
type race struct {
	got [2]atomic.Uint64
}

// raceStreams a way even out who lost when.
const raceStreams = 8

func (w *world) race(from, to string, ways ...string) *race {
	w.t.Helper()
	r := &race{}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(w.t.Context())
	for i, addr := range ways {
		port := fmt.Sprint(7010 + i)
		l := w.listen(to, ":"+port)
		conns := w.dial(from, net.JoinHostPort(addr, port), raceStreams)
		for _, c := range conns {
			in, err := l.Accept()
			w.must(err)
			context.AfterFunc(ctx, func() { _, _ = c.Close(), in.Close() })
			work.Go(func() { _, _ = io.Copy(c, endless{}) })
			work.Go(func() { _, _ = io.Copy(counting{&r.got[i]}, struct{ io.Reader }{in}) })
		}
	}
	w.t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	<-time.After(time.Second) // slow start is another matter
	return r
}

// run returns the bytes that arrived on either way.
func (r *race) run(d time.Duration) (first, second float64) {
	a, b := r.got[0].Load(), r.got[1].Load()
	<-time.After(d)
	return float64(r.got[0].Load() - a), float64(r.got[1].Load() - b)
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

type counting struct{ n *atomic.Uint64 }

func (c counting) Write(b []byte) (int, error) {
	c.n.Add(uint64(len(b)))
	return len(b), nil
}
