package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestE2ESocksTransparent leads a box that knows of no proxy through the router's client: by redirect TCP, by TPROXY UDP too,
// both families. The router has no other way to the site.
func TestE2ESocksTransparent(t *testing.T) {
	t.Parallel()
	w := newSocksWorld(t, "sockpass")
	w.must(w.box["a"].Forward())
	w.exec("pc", "sh", "-ec", "ip route add default via 10.60.0.1; ip -6 route add default via fd60::1")
	w.echoUDP("web", site4+":7001")
	w.echoUDP("web", "["+site6+"]:7001")
	w.oddServer("web", site4+":7000")
	for _, how := range []string{"redirect", "tproxy"} {
		t.Run(how, func(t *testing.T) {
			setting := how + ":1085"
			p := w.start("a", "socks", "socks", "client", "--server", w.key["b"], "--transparent", setting, "--rule", "port:9999=block")
			rules, err := w.box["a"].Skywire(t.Context(), "socks", "client", "--print-rules", "--transparent", setting)
			w.must(err)
			w.exec("a", "sh", "-c", rules)
			for _, url := range []string{"http://" + site4 + ":8080/", "http://[" + site6 + "]:8080/"} {
				w.wait("a page at "+url, func(ctx context.Context) error {
					out, err := w.box["pc"].Exec(ctx, "curl", "-sSf", "-g", "-m", "5", url)
					if err == nil && !strings.Contains(out, secret) {
						err = fmt.Errorf("%q", out)
					}
					return w.alive(p, err)
				})
			}
			halfClose(t, w.dial("pc", site4+":7000", 1)[0], 1<<20)
			reset(t, w.dial("pc", site4+":7000", 1)[0])
			if out, err := w.box["pc"].Exec(t.Context(), "curl", "-sS", "-m", "5", "http://"+site4+":9999/"); err == nil {
				t.Errorf("a blocked port answered: %q", out)
			}
			if out, err := w.box["pc"].Exec(t.Context(), "curl", "-sS", "-m", "5", "http://10.60.0.1:1085/"); err == nil {
				t.Errorf("the diverted port itself answered: %q", out)
			}
			if how == "tproxy" {
				w.echoesUDP("pc", site4+":7001")
				w.echoesUDP("pc", "["+site6+"]:7001")
			}
			w.exec("a", "sh", "-ec", undoing(rules))
			w.must(p.Stop(10 * time.Second))
			delete(w.run, "a socks")
			if left := w.exec("a", "sh", "-c", "nft list ruleset; ip rule | grep 0x534b; ip -6 rule | grep 0x534b; true"); strings.Contains(left, "skywire_socks") || strings.Contains(left, "534b") {
				t.Errorf("after the script's own undoing: %s", left)
			}
		})
	}
	w.stopAll("socks", "node")
}

// undoing are the lines of a script's comment that take its rules away.
func undoing(script string) string {
	var lines []string
	for _, l := range strings.Split(script, "\n") {
		if cmd, ok := strings.CutPrefix(l, "#   "); ok {
			lines = append(lines, cmd)
		}
	}
	return strings.Join(lines, "\n")
}

// echoUDP answers packets in a box.
func (w *world) echoUDP(box, addr string) {
	w.t.Helper()
	var pc net.PacketConn
	w.must(w.box[box].Enter(func() (err error) {
		pc, err = net.ListenPacket("udp", addr)
		return err
	}))
	w.t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
}

// echoesUDP sends packets of several sizes until each has come back from the very address that it was sent to.
func (w *world) echoesUDP(box, addr string) {
	w.t.Helper()
	c := w.udp(box, addr) // connected: the kernel takes answers from addr alone
	for _, n := range []int{1, 1200, 1472} {
		msg, buf := bytes.Repeat([]byte{byte(n)}, n), make([]byte, 1<<16)
		w.wait(fmt.Sprintf("%d bytes back from %s", n, addr), func(context.Context) error {
			if _, err := c.Write(msg); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			k, err := c.Read(buf)
			if err == nil && !bytes.Equal(buf[:k], msg) {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
	}
}
