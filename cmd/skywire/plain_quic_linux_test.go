package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
)

// What streams are compared with: quic-go as it comes, on a net.UDPConn, in processes of its own.

// plainRole names the environment variable that makes this test binary one of those processes.
const plainRole = "SKYWIRE_TEST_PLAIN_QUIC"

// TestPlainQUIC is such a process, and nothing among the other tests: sink ADDR, send ADDR SECONDS, exit ADDR TARGET, entry
// LISTEN ADDR.
func TestPlainQUIC(t *testing.T) {
	role := strings.Fields(os.Getenv(plainRole))
	if len(role) == 0 {
		return
	}
	conf, err := plainTLS()
	if err != nil {
		t.Fatal(err)
	}
	switch ctx := t.Context(); role[0] {
	case "sink":
		err = plainListen(ctx, role[1], conf, func(s *quic.Stream) {
			start := time.Now()
			n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 64<<10))
			fmt.Fprintf(s, "%f Mbit/s, %d bytes in %f s of the receiver", float64(n)*8/1e6/time.Since(start).Seconds(), n, processTime())
			s.Close()
		})
	case "send":
		err = plainSend(ctx, role[1], role[2], conf)
	case "exit":
		err = plainListen(ctx, role[1], conf, func(s *quic.Stream) {
			c, err := net.Dial("tcp", role[2])
			if err != nil {
				s.CancelWrite(1)
				s.CancelRead(1)
				return
			}
			plainPump(s, c.(*net.TCPConn))
		})
	case "entry":
		err = plainEntry(ctx, role[1], role[2], conf)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func plainTLS() (*tls.Config, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), private)
	return &tls.Config{
		NextProtos: []string{"plain"}, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}, err
}

func plainListen(ctx context.Context, addr string, conf *tls.Config, serve func(*quic.Stream)) error {
	ln, err := quic.ListenAddr(addr, conf, nil)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept(ctx)
		if err != nil {
			return err
		}
		go func() { // ends with the process
			for {
				s, err := c.AcceptStream(ctx)
				if err != nil {
					return
				}
				go serve(s)
			}
		}()
	}
}

// processTime is what this process has used of the processors, in seconds.
func processTime() float64 {
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return 0
	}
	return time.Duration(own.Utime.Nano() + own.Stime.Nano()).Seconds()
}

// plainSend prints the megabits a second that the sink counted.
func plainSend(ctx context.Context, addr, seconds string, conf *tls.Config) error {
	secs, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return err
	}
	c, err := quic.DialAddr(ctx, addr, conf, nil)
	if err != nil {
		return err
	}
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for end := time.Now().Add(time.Duration(secs * float64(time.Second))); time.Now().Before(end); {
		if _, err := s.Write(block); err != nil {
			return err
		}
	}
	s.Close()
	got, err := io.ReadAll(s)
	st := c.ConnectionStats()
	fmt.Printf("plain quic-go: %s, %f s of the sender, %d packets, %d lost, round trip %v\n",
		got, processTime(), st.PacketsSent, st.PacketsLost, st.SmoothedRTT)
	return err
}

func plainEntry(ctx context.Context, listen, addr string, conf *tls.Config) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	qc, err := quic.DialAddr(ctx, addr, conf, nil)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		s, err := qc.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		go plainPump(s, c.(*net.TCPConn)) // ends with the process
	}
}

func plainPump(s *quic.Stream, c *net.TCPConn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{c}, make([]byte, 32<<10))
		s.Close()
	})
	both.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{s}, make([]byte, 32<<10))
		_ = c.CloseWrite()
	})
	both.Wait()
	_ = c.Close()
}

// plainStart starts one of the processes in a box.
func (w *world) plainStart(box, name string, role ...string) *lab.Process {
	w.t.Helper()
	p, err := w.box[box].Start(name, "env", plainRole+"="+strings.Join(role, " "), os.Args[0], "-test.run=^TestPlainQUIC$", "-test.timeout=1h")
	w.must(err)
	return p
}

// plainQUIC is what one stream of quic-go does from one box to an address of another, in Mbit/s, and what both
// ends used of the processors, in seconds a gigabyte.
func (w *world) plainQUIC(from, to, addr string, d time.Duration) (mbit, cost float64) {
	w.t.Helper()
	addr = net.JoinHostPort(addr, "7443")
	sink := w.plainStart(to, "plain-sink", "sink", addr)
	defer sink.Kill()
	w.wait("quic-go in "+to, func(ctx context.Context) error {
		_, err := w.box[to].Shell(ctx, "ss -Hulpn sport = :7443 | grep -q .")
		return w.alive(sink, err)
	})
	send := w.plainStart(from, "plain-send", "send", addr, fmt.Sprint(d.Seconds()))
	defer send.Kill()
	select {
	case <-send.Done():
	case <-time.After(d + patience):
	}
	_, line, _ := strings.Cut(send.Tail(2), "plain quic-go: ") // the one before ended with PASS
	var bytes, receiver, sender float64
	if _, err := fmt.Sscanf(line, "%g Mbit/s, %g bytes in %g s of the receiver, %g s", &mbit, &bytes, &receiver, &sender); err != nil {
		w.t.Fatalf("quic-go in %s: %s", from, send.Tail(5))
	}
	line, _, _ = strings.Cut(line, "\n")
	w.t.Logf("quic-go from %s to %s: %s", from, to, line)
	return mbit, (receiver + sender) / bytes * 1e9
}
