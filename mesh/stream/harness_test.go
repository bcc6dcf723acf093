package stream_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// mesh is some endpoints on one network.
type mesh struct {
	t    testing.TB
	net  *streamtest.Network
	work sync.WaitGroup

	// For the nodes started after they are set.
	prefer  stream.Prefer
	kernels bool // they have TCP
}

// node is an endpoint that runs until stop.
type node struct {
	*stream.Endpoint
	key    key.Public
	kernel *streamtest.Kernel
	stop   func()
}

func newMesh(t testing.TB, c streamtest.Conditions) *mesh {
	return &mesh{t: t, net: streamtest.New(1, c)}
}

// identity returns the i-th identity of the tests.
func identity(t testing.TB, i byte) *key.Private {
	t.Helper()
	for salt := range byte(255) { // one seed in two gives a key of our form
		if k, err := key.FromSeed([32]byte{i, salt, 'k'}); err == nil {
			return k
		}
	}
	t.Fatal("no seed of that number makes a key")
	return nil
}

func (m *mesh) start(i byte) *node { return m.startAs(identity(m.t, i), identity(m.t, i).Public()) }

// startAs runs an endpoint with the identity id at the place of key k: an impostor if they differ.
func (m *mesh) startAs(id *key.Private, k key.Public) *node {
	m.t.Helper()
	var log *slog.Logger
	if testing.Verbose() && os.Getenv("STREAM_DEBUG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := stream.Config{Identity: id, Network: m.net.ID(), Carrier: m.net.Carrier(k), Prefer: m.prefer, Log: log}
	var kernel *streamtest.Kernel
	if m.kernels {
		kernel = m.net.Kernel(k)
		c.Kernel = kernel
	}
	e, err := stream.New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.net.Join(k, e)
	done := make(chan struct{})
	m.work.Go(func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			m.t.Errorf("Run: %v", err)
		}
	})
	return &node{Endpoint: e, key: k, kernel: kernel, stop: func() { cancel(); <-done }}
}

// end stops nodes and waits for the last packet.
func (m *mesh) end(nodes ...*node) {
	for _, n := range nodes {
		n.stop()
	}
	m.work.Wait()
	m.net.Wait()
}

func anyone(key.Public) bool { return true }

// handle registers a service that accepts everything and gives the stream to f.
func (n *node) handle(t testing.TB, name string, f func(*stream.Stream)) {
	t.Helper()
	_, err := n.Handle(name, stream.Service{Allow: anyone, Handle: func(_ context.Context, in *stream.Incoming) {
		s, err := in.Accept(append([]byte("re:"), in.Header()...))
		if err != nil {
			return
		}
		f(s)
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// echo sends everything back and ends when the other side does.
func echo(s *stream.Stream) {
	io.Copy(s, s)
	s.CloseWrite()
}

// source is n bytes that no other seed gives.
func source(seed uint64, n int64) io.Reader {
	var b [32]byte
	b[0], b[1] = byte(seed), byte(seed>>8)
	return io.LimitReader(rand.NewChaCha8(b), n)
}

func sum(r io.Reader) (h hash.Hash, n int64, err error) {
	h = sha256.New()
	n, err = io.Copy(h, r)
	return h, n, err
}

func isReset(err error, code uint64) bool {
	var r *stream.ResetError
	return errors.As(err, &r) && r.Code == code
}
