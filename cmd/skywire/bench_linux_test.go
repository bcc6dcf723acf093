package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// BenchmarkE2ETCP measures TCP through the vpn, direct and over one relay, and beside it, on the same wires, through
// wireguard-go if SKYWIRE_COMPARE names its program (make compare fetches it).
func BenchmarkE2ETCP(b *testing.B) {
	for _, c := range []struct {
		name  string
		boxes []string
	}{{"direct", []string{"a", "b"}}, {"one relay", []string{"a", "r1", "b"}}} {
		b.Run("skywire "+c.name, func(b *testing.B) {
			w := newWorld(b, "bench")
			w.chain(c.boxes...)
			w.vpnUp("a", "b")
			w.pings("a", w.address("b"))
			w.measure(b, w.address("b"))
			for _, box := range c.boxes {
				b.ReportMetric(float64(w.run[box+" node"].RSS())/1e6, box+"-node-MB")
			}
		})
		b.Run("wireguard-go "+c.name, func(b *testing.B) {
			program := os.Getenv("SKYWIRE_COMPARE")
			if program == "" {
				b.Skip("SKYWIRE_COMPARE names no wireguard-go")
			}
			w := newWorld(b, "bench")
			w.routed(c.boxes)
			w.wireguard(program, len(c.boxes)-1)
			w.pings("a", "10.200.0.2")
			w.measure(b, "10.200.0.2")
		})
	}
}

// measure runs iperf3 both ways, b.N times.
func (w *world) measure(b *testing.B, addr string) {
	var up, down float64
	for b.Loop() {
		up += w.iperf("a", "b", addr)
		down += w.iperf("a", "b", addr, "-R")
	}
	b.ReportMetric(up/float64(b.N)/1e6, "Mbit/s-a-to-b")
	b.ReportMetric(down/float64(b.N)/1e6, "Mbit/s-b-to-a")
	b.ReportMetric(0, "ns/op")
}

// routed makes the wires of chain without nodes; the boxes between forward as kernels do.
func (w *world) routed(names []string) {
	w.t.Helper()
	w.plain(names...)
	for i, n := range names[1:] {
		w.must(w.lab.Wire(w.end(names[i], "next", fmt.Sprintf("10.1.%d.1/24", i)), w.end(n, "prev", fmt.Sprintf("10.1.%d.2/24", i))))
	}
	if len(names) == 3 {
		w.must(w.box["r1"].Forward(), w.box["a"].IP("route add default via 10.1.0.2"), w.box["b"].IP("route add default via 10.1.1.1"))
	}
}

// wireguard sets up a tunnel 10.200.0.1–10.200.0.2 between a and b.
func (w *world) wireguard(program string, wires int) {
	w.t.Helper()
	keys := map[string]*ecdh.PrivateKey{}
	for _, box := range []string{"a", "b"} {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		w.must(err)
		keys[box] = k
	}
	for _, x := range []struct{ box, other, addr, allowed, endpoint string }{
		{"a", "b", "10.200.0.1/24", "10.200.0.2/32", fmt.Sprintf("10.1.%d.2:51820", wires-1)},
		{"b", "a", "10.200.0.2/24", "10.200.0.1/32", "10.1.0.1:51820"},
	} {
		dev := "wg" + x.box + fmt.Sprint(os.Getpid()%10000)
		p, err := w.box[x.box].Start("wireguard", program, "-f", dev)
		w.must(err)
		conf := fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=51820\npublic_key=%x\nallowed_ip=%s\nendpoint=%s\n\n",
			keys[x.box].Bytes(), keys[x.other].PublicKey().Bytes(), x.allowed, x.endpoint)
		w.wait("wireguard-go in "+x.box, func(ctx context.Context) error { return w.alive(p, setWireguard(dev, conf)) })
		w.must(w.box[x.box].IP("addr add "+x.addr+" dev "+dev), w.box[x.box].IP("link set dev "+dev+" mtu 1420 up"))
	}
}

// setWireguard speaks to wireguard-go's socket.
func setWireguard(dev, conf string) error {
	c, err := net.DialTimeout("unix", "/var/run/wireguard/"+dev+".sock", time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, conf); err != nil {
		return err
	}
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	if err == nil && string(answer[:n]) != "errno=0\n\n" {
		err = fmt.Errorf("wireguard-go says %q", answer[:n])
	}
	return err
}
