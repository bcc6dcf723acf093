package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/socks"
)

// The site that programs of other people's are led to: its addresses are public ones.
const (
	site4     = "9.9.9.2"
	site6     = "2a00:9::2"
	pageParts = 120 // of the page that the browser loads
)

// TestE2ESocksPrograms leads curl, git, ssh, a browser and a QUIC client through one client and one exit.
func TestE2ESocksPrograms(t *testing.T) {
	t.Parallel()
	w := newSocksWorld(t, "sockprog")
	w.start("a", "socks", "socks", "client", "--server", w.key["b"], "--users-file", w.users(), "--listen", "127.0.0.1:1080")
	w.start("a", "socks2", "socks", "client", "--server", w.key["b"], "--listen", "127.0.0.1:1081,unix:"+w.box["a"].Run()+"/socks", "--optimistic",
		"--rule", "name:blocked.example=block")
	for _, port := range []string{"1080", "1081"} {
		w.wait("socks client", func(ctx context.Context) error {
			_, err := w.box["a"].Shell(ctx, "ss -Htln sport = :"+port+" | grep -q .")
			return err
		})
	}
	w.wait("a page", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "curl", "-sSf", "-m", "5", "-x", "socks5h://127.0.0.1:1081", "http://web.example:8080/")
		return w.alive(w.run["a socks2"], err)
	})
	t.Run("curl", func(t *testing.T) { w.curls(t) })
	t.Run("git", func(t *testing.T) { w.gits(t) })
	t.Run("ssh", func(t *testing.T) { w.sshs(t) })
	t.Run("quic", func(t *testing.T) { w.quics(t) })
	t.Run("browser", func(t *testing.T) { w.browses(t) })
	w.stopAll("socks2", "socks", "node")
}

// socksWorld is a router with a node, an exit, and a site behind it.
type socksWorld struct{ *world }

func newSocksWorld(t *testing.T, name string) socksWorld {
	t.Helper()
	w := socksWorld{newWorld(t, name)}
	w.boxes("a", "b")
	w.plain("web", "pc")
	w.must(
		w.lab.Wire(w.end("a", "wan", "10.1.0.1/24"), w.end("b", "wan", "10.1.0.2/24")),
		w.lab.Wire(w.end("b", "lan", "9.9.9.1/24", "2a00:9::1/64"), w.end("web", "eth0", site4+"/24", site6+"/64")),
		w.lab.Wire(w.end("a", "br-lan", "10.60.0.1/24", "fd60::1/64"), w.end("pc", "eth0", "10.60.0.2/24", "fd60::2/64")),
		w.box["b"].WriteEtc("hosts", site4+" web.example\n"),
	)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"])
	w.siteServer()
	return w
}

func (w socksWorld) users() string {
	path := filepath.Join(w.box["a"].Dir, "users")
	w.must(os.WriteFile(path, []byte("# who\nann:s3cret\nbob:other\n"), 0o600))
	return path
}

// siteServer serves pages over HTTP and HTTPS, and a page with many parts.
func (w socksWorld) siteServer() {
	w.t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %s %d\n", secret, r.Method, r.RemoteAddr, len(b))
	})
	mux.HandleFunc("/page", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, "<!DOCTYPE html><body><script>var n = 0; onload = () => document.body.dataset.loaded = n</script>")
		for i := range pageParts {
			fmt.Fprintf(rw, "<script src=/part/%d></script>", i)
		}
	})
	mux.HandleFunc("/part/", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/javascript")
		fmt.Fprintf(rw, "n++; // %s\n", strings.Repeat("x", 20_000))
	})
	mux.Handle("/repo/", http.StripPrefix("/repo/", http.FileServer(http.Dir(filepath.Join(w.box["web"].Dir, "repo", ".git")))))
	conf, err := plainTLS()
	w.must(err)
	conf.NextProtos = nil
	for _, addr := range []string{site4 + ":8080", "[" + site6 + "]:8080", site4 + ":8443"} {
		l := w.listen("web", addr)
		if strings.HasSuffix(addr, "8443") {
			l = tls.NewListener(l, conf)
		}
		s := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
		go func() { _ = s.Serve(l) }() // ends when the server is closed
		w.t.Cleanup(func() { _ = s.Close() })
	}
}

func (w socksWorld) curls(t *testing.T) {
	plain, crypted := "http://web.example:8080/", "https://web.example:8443/"
	for _, c := range []struct {
		proxy, url string
		args       []string
		ok         bool
	}{
		{"socks4://127.0.0.1:1081", "http://" + site4 + ":8080/", nil, true},
		{"socks4a://127.0.0.1:1081", plain, nil, true},
		{"socks4a://127.0.0.1:1081", crypted, nil, true},
		{"socks5://127.0.0.1:1081", "http://" + site4 + ":8080/", nil, true},
		{"socks5h://127.0.0.1:1081", crypted, nil, true},
		{"socks5h://127.0.0.1:1081", "http://[" + site6 + "]:8080/", nil, true},
		{"socks5h://localhost" + w.box["a"].Run() + "/socks", plain, nil, true},
		{"http://127.0.0.1:1081", plain, nil, true},
		{"http://127.0.0.1:1081", crypted, nil, true},
		{"http://127.0.0.1:1081", plain, []string{"--proxytunnel"}, true},
		{"http://127.0.0.1:1081", "http://blocked.example/", nil, false},
		{"socks5h://ann:s3cret@127.0.0.1:1080", crypted, nil, true},
		{"socks5h://bob:other@127.0.0.1:1080", plain, nil, true},
		{"socks5h://ann:wrong@127.0.0.1:1080", plain, nil, false},
		{"socks4a://127.0.0.1:1080", plain, nil, false},
		{"http://ann:s3cret@127.0.0.1:1080", plain, []string{"-d", "posted"}, true},
		{"http://127.0.0.1:1080", plain, nil, false},
		{"http://ann:s3cret@127.0.0.1:1080", "http://nowhere.invalid/", nil, false},
	} {
		args := append([]string{"-sSfk", "-m", "20", "--noproxy", "", "-x", c.proxy, c.url}, c.args...)
		out, err := w.box["a"].Exec(t.Context(), "curl", args...)
		if (err == nil) != c.ok || c.ok && !strings.Contains(out, secret) {
			t.Errorf("curl -x %s %s: %q, %v", c.proxy, c.url, out, err)
		}
	}
	if out := w.exec("a", "curl", "-sSf", "--noproxy", "*", "http://127.0.0.1:1081/proxy.pac"); !strings.Contains(out, "FindProxyForURL") {
		t.Errorf("proxy.pac: %q", out)
	}
}

func (w socksWorld) gits(t *testing.T) {
	repo := filepath.Join(w.box["web"].Dir, "repo")
	w.exec("web", "sh", "-ec", "mkdir "+repo+"; cd "+repo+`; git init -q; head -c 300000 /dev/urandom >f; git add f
git -c user.name=a -c user.email=a@b commit -q -m one; git update-server-info`)
	for i, proxy := range []string{"socks5h://127.0.0.1:1081", "http://ann:s3cret@127.0.0.1:1080"} {
		to := filepath.Join(w.box["a"].Dir, fmt.Sprint("clone", i))
		w.exec("a", "git", "-c", "http.proxy="+proxy, "clone", "-q", "http://web.example:8080/repo/", to)
		if out := w.exec("a", "cmp", filepath.Join(repo, "f"), filepath.Join(to, "f")); out != "" {
			t.Errorf("git over %s: %s", proxy, out)
		}
	}
}

func (w socksWorld) sshs(t *testing.T) {
	if _, err := exec.LookPath("nc"); err != nil {
		t.Skip("no nc")
	}
	dir := w.box["web"].Dir
	w.exec("web", "sh", "-ec", "mkdir -p /run/sshd; cd "+dir+"; ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user; cp user.pub allowed; chmod 600 allowed")
	_, err := w.box["web"].Start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", filepath.Join(dir, "host"),
		"-o", "AuthorizedKeysFile="+filepath.Join(dir, "allowed"), "-o", "StrictModes=no", "-o", "PidFile=none")
	w.must(err)
	w.wait("sshd", func(ctx context.Context) error {
		_, err := w.box["web"].Shell(ctx, "ss -Htln sport = :2222 | grep -q .")
		return err
	})
	for _, way := range []string{"nc -X 5 -x 127.0.0.1:1081 %h %p", "nc -X 4 -x 127.0.0.1:1081 " + site4 + " %p", "nc -X connect -x 127.0.0.1:1081 %h %p"} {
		out, err := w.box["a"].Exec(t.Context(), "ssh", "-F", "none", "-i", filepath.Join(dir, "user"), "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ProxyCommand="+way, "-p", "2222", "web.example", "head -c 200000 /dev/zero | wc -c")
		if err != nil || strings.TrimSpace(out) != "200000" {
			t.Errorf("ssh over %s: %q, %v", way, out, err)
		}
	}
}

// browses loads a page of many parts in a real browser, by each way that it knows of a proxy.
func (w socksWorld) browses(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium")
	}
	for i, way := range []string{"--proxy-server=socks5://127.0.0.1:1081", "--proxy-server=http://127.0.0.1:1081", "--proxy-pac-url=http://127.0.0.1:1081/proxy.pac"} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		out, err := w.box["a"].Exec(ctx, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
			"--disable-background-networking", "--user-data-dir="+filepath.Join(w.box["a"].Dir, fmt.Sprint("chromium", i)), way, "--dump-dom", "http://web.example:8080/page")
		cancel()
		if err != nil || !strings.Contains(out, fmt.Sprintf(`data-loaded="%d"`, pageParts)) {
			t.Errorf("chromium %s: %.300q, %v", way, out, err)
		}
	}
}

// quics speaks QUIC to the site over UDP ASSOCIATE, by name and by address.
func (w socksWorld) quics(t *testing.T) {
	conf, err := plainTLS()
	w.must(err)
	var pc net.PacketConn
	w.must(w.box["web"].Enter(func() (err error) {
		pc, err = net.ListenPacket("udp", site4+":4433")
		return err
	}))
	l, err := quic.Listen(pc, conf, nil)
	w.must(err)
	t.Cleanup(func() { l.Close(); pc.Close() })
	go func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return // closed
			}
			go func() {
				s, err := c.AcceptStream(context.Background())
				if err == nil {
					_, _ = io.Copy(s, s)
					s.Close()
				}
			}()
		}
	}()
	for _, host := range []string{site4, "web.example"} {
		assoc := w.associate("127.0.0.1:1081", host, 4433)
		c, err := quic.Dial(t.Context(), assoc.asPacketConn(), &net.UDPAddr{IP: net.ParseIP(site4), Port: 4433}, conf, nil)
		if err != nil {
			t.Fatalf("QUIC to %s: %v", host, err)
		}
		s, err := c.OpenStreamSync(t.Context())
		w.must(err)
		const size = 2 << 20
		go func() {
			_, _ = io.Copy(s, known(size))
			s.Close()
		}()
		if err := same(s, known(size)); err != nil {
			t.Errorf("QUIC to %s: %v", host, err)
		}
		_ = c.CloseWithError(0, "")
		assoc.Close()
	}
}

// same compares two readers to their ends.
func same(got, want io.Reader) error {
	a, err := io.ReadAll(got)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(want)
	if err != nil || string(a) != string(b) {
		return errors.Join(err, fmt.Errorf("%d bytes, want %d, or they differ", len(a), len(b)))
	}
	return nil
}

// socksPackets is a packet conn over a UDP association, whose packets all go to one target.
type socksPackets struct {
	*net.UDPConn
	tcp  net.Conn
	host string
	port uint16
	buf  [1 << 16]byte
}

// associate opens an association in box a.
func (w socksWorld) associate(proxy, host string, port uint16) *socksPackets {
	w.t.Helper()
	p := &socksPackets{tcp: w.dial("a", proxy, 1)[0], host: host, port: port}
	_ = p.tcp.SetDeadline(time.Now().Add(2 * patience))
	_, err := p.tcp.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	w.must(err)
	var r [12]byte
	if _, err := io.ReadFull(p.tcp, r[:]); err != nil || r[3] != 0 {
		w.t.Fatalf("associate: %x, %v", r, err)
	}
	_ = p.tcp.SetDeadline(time.Time{})
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[6:10])), uint16(r[10])<<8|uint16(r[11]))
	p.UDPConn = w.udp("a", at.String()).(*net.UDPConn)
	return p
}

func (p *socksPackets) Close() error { return errors.Join(p.tcp.Close(), p.UDPConn.Close()) }

func (p *socksPackets) WriteTo(b []byte, _ net.Addr) (int, error) {
	d := socks.Datagram{Port: p.port, Payload: b}
	if a, err := netip.ParseAddr(p.host); err == nil {
		d.Addr = a
	} else {
		d.Name = p.host
	}
	_, err := p.UDPConn.Write(d.Append([]byte{0, 0, 0}))
	return len(b), err
}

func (p *socksPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.UDPConn.Read(p.buf[:])
	if err != nil {
		return 0, nil, err
	}
	d, err := socks.ParseUDP(p.buf[:n])
	if err != nil {
		return 0, nil, err
	}
	return copy(b, d.Payload), &net.UDPAddr{IP: d.Addr.AsSlice(), Port: int(d.Port)}, nil
}

// Only what quic needs of a packet conn that is no socket: with more it would read past the association's header.
func (p *socksPackets) asPacketConn() net.PacketConn { return struct{ net.PacketConn }{p} }
