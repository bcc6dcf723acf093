package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A download takes long enough to pull a relay out in its middle.
const (
	downloadSize = 160 << 20
	downloadRate = 20 << 20 // bytes per second
	chunk        = 64 << 10
)

// page is what the web server answers at /; a capture must not hold it.
const page = "This page lies behind the exit. You came from %s.\n"

// web is the small web server behind the exit, in this process, listening in the namespace.
type web struct {
	server *http.Server
	sum    string // SHA-256 of /download
}

func (d *demo) startWeb() error {
	d.step("starting a web server behind the exit")
	var fd int
	err := d.box["web"].Enter(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{10, 50, 0, 2}}); err != nil {
			return err
		}
		return unix.Listen(fd, 128)
	})
	if err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	f := os.NewFile(uintptr(fd), "web")
	l, err := net.FileListener(f)
	if err = closing(f, err); err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, content()); err != nil {
		return fmt.Errorf("web server: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, page, host)
	})
	mux.HandleFunc("GET /download", download)
	d.web = &web{server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, sum: hex.EncodeToString(hash.Sum(nil))}
	go func() { _ = d.web.server.Serve(l) }() // ends with the process
	return nil
}

func closing(c io.Closer, err error) error {
	if e := c.Close(); err == nil {
		err = e
	}
	return err
}

// content is downloadSize bytes that do not compress and do not repeat.
func content() io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{'d', 'e', 'm', 'o'}), downloadSize)
}

// download sends content at downloadRate.
func download(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(downloadSize))
	if err := pace(r.Context(), w, content()); err != nil {
		panic(http.ErrAbortHandler) // the client left; nothing to answer
	}
}

func pace(ctx context.Context, w io.Writer, from io.Reader) error {
	tick := time.NewTicker(time.Second * chunk / downloadRate)
	defer tick.Stop()
	for {
		if _, err := io.CopyN(w, from, chunk); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
