package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// publisher is a world in which b publishes web and dns to a, and not to c.
type publisher struct {
	*world
	addr string // mesh address of b
}

// TestE2EPublish: what b publishes reaches a by forward, by socks and by the vpn, and c by none of them; no other port of b
// opens; a grant that is taken back ends what runs; kill -9 of any part, and all is as before when it is back.
func TestE2EPublish(t *testing.T) {
	t.Parallel()
	p := &publisher{world: newWorld(t, "packetspub")}
	p.chain("a", "b", "c")
	p.reach("a", "b")
	p.reach("c", "b")
	p.addr = p.address("b")
	p.serve("b", "127.0.0.1:8080")
	p.answerNames("b", "127.0.0.1:5300")
	p.publish()
	for _, box := range []string{"a", "c"} {
		p.skywire(box, "node", "petname", "add", "bob", p.key["b"])
		p.start(box, "forward", "socks", "forward", "--local", "8081=bob:web", "--local", "8082=bob:80",
			"--local", "5353=bob:dns/udp", "--local", "unix:"+p.box[box].Run()+"/web.sock=bob:web")
		p.start(box, "socks", "socks", "client", "--listen", "127.0.0.1:1080")
	}
	p.vpnUp("a", "b", "c")

	p.part("admitted", func(*testing.T) { p.admitted("a") })
	p.part("refused", func(*testing.T) { p.refused("c") })
	p.part("listed", p.listed)
	p.part("closed", p.closed)
	p.part("revoked", p.revoked)
	p.part("killed", p.killed)
}

// part is a subtest that the world's checks fail.
func (p *publisher) part(name string, f func(t *testing.T)) {
	whole := p.t.(*testing.T)
	whole.Run(name, func(t *testing.T) {
		p.t = t
		defer func() { p.t = whole }()
		f(t)
	})
}

func (p *publisher) skywire(box string, args ...string) {
	p.t.Helper()
	_, err := p.box[box].Skywire(p.t.Context(), args...)
	p.must(err)
}

func (p *publisher) publish() {
	p.t.Helper()
	p.start("b", "publish", "socks", "publish", "web:80=tcp://127.0.0.1:8080", "dns:53=udp://127.0.0.1:5300", "--allow", p.key["a"])
}

// answerNames answers every question for an IPv4 address with 192.0.2.53, in a box.
func (p *publisher) answerNames(box, addr string) {
	p.t.Helper()
	var c net.PacketConn
	p.must(p.box[box].Enter(func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	}))
	p.t.Cleanup(func() { _ = c.Close() })
	go func() { // ends with the socket
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			q := b[:n]
			end := bytes.IndexByte(q[min(12, n):], 0) + 12 + 5 // the name's last label, type and class
			if n < 17 || end > n {
				continue
			}
			a := append([]byte{q[0], q[1], 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0}, q[12:end]...)
			a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53)
			_, _ = c.WriteTo(a, from)
		}
	}()
}

// ways are the commands that reach web from a box.
func (p *publisher) ways(box string) map[string][]string {
	curl := []string{"curl", "-sS", "-g", "-m", "4", "-f"}
	socks := []string{"-x", "socks5h://127.0.0.1:1080"}
	url := "http://[" + p.addr + "]/"
	ways := map[string][]string{
		"forward by name":   {"http://127.0.0.1:8081/"},
		"forward by port":   {"http://127.0.0.1:8082/"},
		"forward by socket": {"--unix-socket", p.box[box].Run() + "/web.sock", "http://web/"},
		"vpn":               {url},
		"socks service":     append(socks[:2:2], "http://web.bob.mesh/"),
		"socks node":        append(socks[:2:2], "http://bob.mesh/"),
		"socks address":     append(socks[:2:2], url),
	}
	for name, args := range ways {
		ways[name] = append(curl[:len(curl):len(curl)], args...)
	}
	return ways
}

// questions are the commands that reach dns from a box.
func (p *publisher) questions() map[string][]string {
	dig := []string{"dig", "+short", "+time=1", "+tries=1", "name.example"}
	return map[string][]string{
		"dns by forward": append(dig[:len(dig):len(dig)], "@127.0.0.1", "-p", "5353"),
		"dns by vpn":     append(dig[:len(dig):len(dig)], "@"+p.addr),
	}
}

func (p *publisher) admitted(box string) {
	p.t.Helper()
	for name, cmd := range p.ways(box) {
		p.wait(name+" from "+box, func(ctx context.Context) error {
			out, err := p.box[box].Exec(ctx, cmd[0], cmd[1:]...)
			if err == nil && !strings.Contains(out, secret) {
				err = fmt.Errorf("got %q", out)
			}
			return err
		})
	}
	for name, cmd := range p.questions() {
		p.wait(name+" from "+box, func(ctx context.Context) error {
			out, err := p.box[box].Exec(ctx, cmd[0], cmd[1:]...)
			if err == nil && !strings.Contains(out, "192.0.2.53") {
				err = fmt.Errorf("got %q", out)
			}
			return err
		})
	}
}

func (p *publisher) refused(box string) {
	p.t.Helper()
	for name, cmd := range p.ways(box) {
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		out, err := p.box[box].Exec(ctx, cmd[0], cmd[1:]...)
		cancel()
		if err == nil || strings.Contains(out, secret) {
			p.t.Errorf("%s from %s: got %q, want a refusal", name, box, out)
		}
		if strings.Contains(fmt.Sprint(err), "timed out") {
			p.t.Errorf("%s from %s: silence, want a refusal: %v", name, box, err)
		}
	}
	for name, cmd := range p.questions() {
		if out, err := p.box[box].Exec(p.t.Context(), cmd[0], cmd[1:]...); err == nil && strings.Contains(out, "192.0.2.53") {
			p.t.Errorf("%s from %s: got %q, want nothing", name, box, out)
		}
	}
}

// listed: the services stand in the mesh for all, and who may only at home.
func (p *publisher) listed(t *testing.T) {
	var all []struct {
		Name, Type, Key string
		Port            int
	}
	p.must(p.box["c"].SkywireJSON(t.Context(), &all, "socks", "services", "bob"))
	if len(all) != 2 || all[0].Name != "dns" || all[0].Type != "udp" || all[0].Port != 53 || all[1].Name != "web" || all[1].Type != "tcp" || all[1].Port != 80 {
		t.Errorf("socks services: %+v", all)
	}
	var own []struct {
		Services []struct {
			Name    string
			Allow   []string
			VPN     bool
			Made    int
			Refused int
		}
	}
	p.must(p.box["b"].SkywireJSON(t.Context(), &own, "socks", "published"))
	if len(own) != 1 || len(own[0].Services) != 2 || !own[0].Services[0].VPN || own[0].Services[0].Allow[0] != p.key["a"] || own[0].Services[0].Made == 0 {
		t.Errorf("socks published: %+v", own)
	}
}

// closed: of the ports of b, a finds open by the vpn the one that is published.
func (p *publisher) closed(t *testing.T) {
	p.listen("b", "127.0.0.1:9999")
	var open []int
	p.must(p.box["a"].Enter(func() error {
		for port := 1; port < 1100; port++ {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(p.addr, fmt.Sprint(port)), 5*time.Second)
			if err == nil {
				c.Close()
				open = append(open, port)
			} else if !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
		for _, port := range []int{8080, 5300, 9999} {
			if c, err := net.Dial("tcp", net.JoinHostPort(p.addr, fmt.Sprint(port))); err == nil {
				c.Close()
				open = append(open, port)
			}
		}
		return nil
	}))
	if len(open) != 1 || open[0] != 80 {
		t.Errorf("open ports of the publisher: %v, want 80", open)
	}
}

// revoked: live connections end within a second, and a new grant opens the service again.
func (p *publisher) revoked(t *testing.T) {
	conns := map[string]net.Conn{
		"forward": p.dial("a", "127.0.0.1:8081", 1)[0],
		"vpn":     p.dial("a", "["+p.addr+"]:80", 1)[0],
	}
	for name, c := range conns { // a request whose end is not sent: the server waits
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAtLeast(c, make([]byte, 4096), 100); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	p.skywire("b", "socks", "revoke", "web", p.key["a"])
	began := time.Now()
	for name, c := range conns {
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, syscall.EAGAIN) || isTimeout(err) {
			t.Errorf("%s: still open after %v", name, time.Since(began))
		}
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("what ran ended after %v, want 1s at most", d)
	}
	for name, cmd := range p.ways("a") {
		if out, err := p.box["a"].Exec(t.Context(), cmd[0], cmd[1:]...); err == nil {
			t.Errorf("%s after the grant was taken back: %q", name, out)
		}
	}
	p.skywire("b", "socks", "grant", "web", p.key["a"])
	p.admitted("a")
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// killed: after kill -9 and a new start of the publisher, the node behind it and the forward, all works as before.
func (p *publisher) killed(*testing.T) {
	p.run["b publish"].Kill()
	p.refused("a")
	p.publish()
	p.admitted("a")
	p.run["b node"].Kill()
	p.node("b", "--peer", p.peer("a", "10.1.0.1"))
	p.run["a forward"].Kill()
	p.start("a", "forward", "socks", "forward", "--local", "8081=bob:web", "--local", "8082=bob:80",
		"--local", "5353=bob:dns/udp", "--local", "unix:"+p.box["a"].Run()+"/web.sock=bob:web")
	p.admitted("a")
	p.refused("c")
}
