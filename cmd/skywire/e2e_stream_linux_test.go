package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/mesh/meshtest/emulator"
)

// TestE2EStreamLoss: over a long path that loses packets, a stream between nodes that run the vpn goes over to the
// kernel's TCP and leaves quic-go, on a socket over the same wire, behind.
func TestE2EStreamLoss(t *testing.T) {
	w := newWorld(t, "strl")
	way := emulator.Profile{Delay: 50 * time.Millisecond, Loss: 0.01}
	w.boxes("a", "b")
	_, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), way, way, 1)
	w.must(err)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	plain := w.plainQUIC("a", "b", "10.1.0.2", 6*time.Second)
	without := w.streamBench("a", "b", "10")
	w.vpnUp("a", "b")
	w.pings("a", w.address("b"))
	with := w.streamBench("a", "b", "15")
	t.Logf("Mbit/s at 100 ms and 1 %% loss: quic-go %.1f, stream %.1f, stream with the vpn at both ends %.1f: %.0f times quic-go",
		plain, without, with, with/plain)
	if with < 10*plain {
		t.Errorf("with the vpn at both ends %.1f Mbit/s, quic-go alone %.1f", with, plain)
	}
}

// streamBench is node bench: Mbit/s one way, as counted by the receiver.
func (w *world) streamBench(from, to, seconds string) float64 {
	w.t.Helper()
	var r struct {
		Send    float64 `json:"send_mbit_s"`
		Receive float64 `json:"receive_mbit_s"`
	}
	w.must(w.box[from].SkywireJSON(w.t.Context(), &r, "node", "bench", "-t", seconds, w.key[to]))
	w.t.Logf("%s to %s: %.1f Mbit/s there, %.1f back", from, to, r.Send, r.Receive)
	return min(r.Send, r.Receive)
}

// plainQUIC is what one stream of quic-go does from one box to another, in Mbit/s, for that long.
func (w *world) plainQUIC(from, to, addr string, d time.Duration) float64 {
	w.t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	w.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), private)
	w.must(err)
	conf := &tls.Config{
		NextProtos: []string{"plain"}, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}
	var ends [2]*quic.Transport
	for i, b := range []string{from, to} {
		w.must(w.box[b].Enter(func() error {
			c, err := net.ListenUDP("udp4", nil)
			ends[i] = &quic.Transport{Conn: c}
			return err
		}))
		defer ends[i].Conn.Close()
		defer ends[i].Close()
	}
	ln, err := ends[1].Listen(conf, nil)
	w.must(err)
	ctx, cancel := context.WithTimeout(w.t.Context(), d+30*time.Second)
	defer cancel()
	got := make(chan float64, 1)
	go func() {
		defer close(got)
		c, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return
		}
		start := time.Now()
		n, _ := io.Copy(io.Discard, s)
		got <- float64(n) * 8 / 1e6 / time.Since(start).Seconds()
	}()
	port := ends[1].Conn.LocalAddr().(*net.UDPAddr).Port
	c, err := ends[0].Dial(ctx, &net.UDPAddr{IP: net.ParseIP(addr), Port: port}, conf, nil)
	w.must(err)
	s, err := c.OpenStreamSync(ctx)
	w.must(err)
	block := slices.Repeat([]byte{'s'}, 64<<10)
	for end := time.Now().Add(d); time.Now().Before(end); {
		_, err := s.Write(block)
		w.must(err)
	}
	w.must(s.Close())
	return <-got
}
