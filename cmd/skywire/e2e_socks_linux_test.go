package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the test server does with a connection, by its first byte.
const (
	askEcho    = 'e' // sends back what comes, and ends when the other side has ended
	askReset   = 'r' // answers a byte and resets
	askTrickle = 't' // 200 single bytes with pauses, then the end
	askBulk    = 'b' // 8 bytes length, then that many bytes of a known stream
	askSilent  = 's' // reads to the end, answers how many bytes came and their hash
)

// TestE2ESocks drives many and odd connections through one exit.
func TestE2ESocks(t *testing.T) {
	w := newWorld(t, "socks")
	w.chain("a", "r1", "b")
	w.plain("web")
	w.must(w.lab.Wire(w.end("b", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")),
		w.box["b"].WriteEtc("hosts", "10.50.0.2 web.example\n"))
	w.reach("a", "b")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--allow-private")
	w.start("a", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"])
	w.oddServer("web", "10.50.0.2:7000")
	w.serve("web", "10.50.0.2:8080")
	w.wait("a page by name", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "curl", "-sS", "-f", "-m", "5", "-x", "socks5h://127.0.0.1:1080", "http://web.example:8080/")
		return w.alive(w.run["a socks"], err)
	})
	w.checkProxied("socks5h://127.0.0.1:1080", "http://web.example:8080/")
	w.checkProxied("http://127.0.0.1:1080", "http://10.50.0.2:8080/", "-p") // CONNECT on the same port

	t.Run("half close", func(t *testing.T) { halfClose(t, w.through("web.example:7000", 1)[0], 1<<20) })
	t.Run("reset", func(t *testing.T) { reset(t, w.through("10.50.0.2:7000", 1)[0]) })
	t.Run("trickle", func(t *testing.T) { trickle(t, w.through("10.50.0.2:7000", 1)[0]) })
	t.Run("upload", func(t *testing.T) {
		size := int64(32 << 20)
		if full() {
			size = 1 << 30
		}
		upload(t, w.through("10.50.0.2:7000", 1)[0], size)
	})
	t.Run("1,000 at once", func(t *testing.T) {
		conns := w.through("10.50.0.2:7000", 1000)
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() { halfClose(t, c, 20_000) })
		}
		wg.Wait()
		t.Logf("the exit's node uses %.1f MB after it", float64(w.run["b node"].RSS())/1e6)
	})
	t.Run("download", func(t *testing.T) {
		size := int64(200 << 20)
		if full() {
			size = 1 << 30
		}
		start := time.Now()
		download(t, w.through("10.50.0.2:7000", 1)[0], size)
		t.Logf("%d MB at %.0f Mbit/s", size>>20, float64(size)*8/time.Since(start).Seconds()/1e6)
	})
	t.Run("closed to strangers and private ranges", func(t *testing.T) { w.checkClosed() })
	w.stopAll("socks", "node")
}

func (w *world) checkProxied(proxy, url string, args ...string) {
	w.t.Helper()
	out := w.exec("a", "curl", append([]string{"-sS", "-f", "-m", "10", "-x", proxy, url}, args...)...)
	if !bytes.Contains([]byte(out), []byte(secret+", 10.50.0.1:")) {
		w.t.Errorf("%s through %s: %q", url, proxy, out)
	}
}

// checkClosed starts a second exit on r1 that allows nobody, and one without --allow-private.
func (w *world) checkClosed() {
	w.t.Helper()
	w.start("r1", "socks", "socks", "server", "--allow", w.key["a"])
	p := w.start("a", "socks2", "socks", "client", "--listen", "127.0.0.1:1081", "--server", w.key["r1"])
	w.wait("second client", func(ctx context.Context) error {
		_, err := w.box["a"].Shell(ctx, "ss -Htln sport = :1081 | grep -q .")
		return w.alive(p, err)
	})
	c := w.dial("a", "127.0.0.1:1081", 1)[0]
	if err := connectSOCKS(c, "10.1.1.2:4443"); !errors.Is(err, errRefused) {
		w.t.Errorf("a private address through a public exit: %v", err)
	}
	p = w.start("r1", "socks3", "socks", "client", "--listen", "127.0.0.1:1081", "--server", w.key["b"])
	w.wait("a stranger's client", func(ctx context.Context) error {
		_, err := w.box["r1"].Shell(ctx, "ss -Htln sport = :1081 | grep -q .")
		return w.alive(p, err)
	})
	c = w.dial("r1", "127.0.0.1:1081", 1)[0]
	if err := connectSOCKS(c, "10.50.0.2:7000"); !errors.Is(err, errRefused) {
		w.t.Errorf("a stranger got through the exit: %v", err)
	}
}

// through opens n connections to target through the socks client of box a.
func (w *world) through(target string, n int) []net.Conn {
	w.t.Helper()
	conns := w.dial("a", "127.0.0.1:1080", n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { errs[i] = connectSOCKS(c, target) })
	}
	wg.Wait()
	w.must(errs...)
	return conns
}

var errRefused = errors.New("refused by the proxy")

// connectSOCKS negotiates a SOCKS5 CONNECT; a reply other than success is errRefused.
func connectSOCKS(c net.Conn, target string) error {
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	port, err := net.LookupPort("tcp", portText)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	request = binary.BigEndian.AppendUint16(request, uint16(port))
	if _, err := c.Write(request); err != nil {
		return err
	}
	reply := make([]byte, 2+4)
	if _, err := io.ReadFull(c, reply); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if reply[3] != 0 {
		return fmt.Errorf("%w: %d", errRefused, reply[3])
	}
	rest := map[byte]int{1: 4, 4: 16}[reply[5]] + 2
	if _, err := io.ReadFull(c, make([]byte, rest)); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return c.SetDeadline(time.Now().Add(2 * time.Minute))
}

// oddServer serves the ask… protocols in a box.
func (w *world) oddServer(box, addr string) {
	l := w.listen(box, addr)
	var wg sync.WaitGroup
	w.t.Cleanup(wg.Wait)
	w.t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveOdd(c.(*net.TCPConn)) })
		}
	})
}

func serveOdd(c *net.TCPConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	ask := make([]byte, 1)
	if _, err := io.ReadFull(c, ask); err != nil {
		return
	}
	switch ask[0] {
	case askEcho:
		if _, err := io.Copy(c, c); err == nil {
			_ = c.CloseWrite()
		}
	case askReset:
		_, _ = c.Write(ask)
		_, _ = io.ReadFull(c, ask) // the client has the first byte
		_ = c.SetLinger(0)
	case askTrickle:
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := range 200 {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				return
			}
			<-tick.C
		}
	case askBulk:
		var size [8]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		_, _ = io.Copy(c, known(int64(binary.BigEndian.Uint64(size[:]))))
	case askSilent:
		h := sha256.New()
		n, _ := io.Copy(h, c)
		_, _ = c.Write(h.Sum(binary.BigEndian.AppendUint64(nil, uint64(n))))
	}
}

// known is a stream that both ends can make.
func known(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{9}), n) }

func halfClose(t *testing.T, c net.Conn, size int64) {
	t.Helper()
	var got bytes.Buffer
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(&got, c)
		done <- err
	}()
	if _, err := c.Write([]byte{askEcho}); err != nil {
		t.Error(err)
	}
	var want bytes.Buffer
	if _, err := io.Copy(io.MultiWriter(c, &want), known(size)); err != nil {
		t.Error(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("sent %d bytes and the end, got %d back: %v", want.Len(), got.Len(), err)
	}
}

func reset(t *testing.T, c net.Conn) {
	t.Helper()
	one := []byte{askReset}
	if _, err := c.Write(one); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, one); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(one); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(one); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far reset arrives as %v", err)
	}
}

func trickle(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte{askTrickle}); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || len(got) != 200 || got[199] != 199 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func upload(t *testing.T, c net.Conn, size int64) {
	t.Helper()
	if _, err := c.Write([]byte{askSilent}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(c, known(size)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	if _, err := io.Copy(want, known(size)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want.Sum(binary.BigEndian.AppendUint64(nil, uint64(size)))) {
		t.Errorf("the server got other bytes than the %d sent: %x, %v", size, got, err)
	}
}

func download(t *testing.T, c net.Conn, size int64) {
	t.Helper()
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{askBulk}, uint64(size))); err != nil {
		t.Fatal(err)
	}
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, c)
	if err != nil || n != size {
		t.Fatalf("%d of %d bytes: %v", n, size, err)
	}
	if _, err := io.Copy(want, known(size)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the bytes differ")
	}
}
