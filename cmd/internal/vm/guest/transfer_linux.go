package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// transfer is what serve and fetch print: what they did as seen by them.
type transfer struct {
	Bytes int64   `json:"bytes"`
	SHA   string  `json:"sha256"`
	MS    float64 `json:"ms"`
	Error string  `json:"error,omitempty"`
}

func answer(t transfer, err error) {
	if err != nil {
		t.Error = err.Error()
	}
	b, err := json.Marshal(t)
	if err != nil {
		b = []byte(`{"error":"encode"}`)
	}
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// source is so many bytes that nobody can guess from others, the same for the same size.
func source(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{0: 's', 1: 'k', 2: 'y'}), size)
}

// serve [ADDR BYTES] answers each connection with so many bytes, until it is ended.
func serve(ctx context.Context, args []string) (transfer, error) {
	if len(args) != 2 {
		return transfer{}, errors.New("usage: serve ADDR BYTES")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return transfer{}, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", args[0])
	if err != nil {
		return transfer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			return transfer{}, err
		}
		if err := errors.Join(c.SetDeadline(time.Now().Add(limit)), send(c, size), c.Close()); err != nil {
			return transfer{}, err // the other end sees a transfer that is too short, which fails the check
		}
	}
}

func send(c net.Conn, size int64) error {
	_, err := io.Copy(c, source(size))
	return err
}

// fetch ADDR [PROXY] reads all that ADDR has, through a SOCKS5 proxy if one is given.
func fetch(ctx context.Context, args []string) (transfer, error) {
	if len(args) < 1 {
		return transfer{}, errors.New("usage: fetch ADDR [PROXY]")
	}
	start := time.Now()
	c, err := dial(ctx, args)
	if err != nil {
		return transfer{}, err
	}
	defer c.Close()
	h := sha256.New()
	n, err := io.Copy(h, c)
	t := transfer{Bytes: n, SHA: hex.EncodeToString(h.Sum(nil)), MS: float64(time.Since(start).Microseconds()) / 1000}
	return t, err
}

func dial(ctx context.Context, args []string) (net.Conn, error) {
	var d net.Dialer
	if len(args) < 2 {
		return d.DialContext(ctx, "tcp", args[0])
	}
	target, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return nil, err
	}
	c, err := d.DialContext(ctx, "tcp", args[1])
	if err != nil {
		return nil, err
	}
	if err := socks5(c, target); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// socks5 asks for a connection as RFC 1928 says, in the words of a client that is not ours: greeting, answer, request, reply.
func socks5(c net.Conn, target netip.AddrPort) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, []byte{5, 0}) {
		return fmt.Errorf("socks greeting: %x: %w", got, errors.Join(err, errSocks))
	}
	kind := byte(1)
	if target.Addr().Is6() {
		kind = 4
	}
	request := append([]byte{5, 1, 0, kind}, target.Addr().AsSlice()...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(request, target.Port())); err != nil {
		return err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if head[1] != 0 {
		return fmt.Errorf("%w with %d", errSocks, head[1])
	}
	rest := map[byte]int{1: 4 + 2, 4: 16 + 2}[head[3]]
	_, err := io.ReadFull(c, make([]byte, rest))
	return err
}

// errSocks is returned when the proxy refuses.
var errSocks = errors.New("the proxy refused")
