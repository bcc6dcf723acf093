package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

const (
	// ServiceName is the service at which a node gives a release, and its type. The header of a stream is the name of a file, the
	// stream is the file.
	ServiceName = "release"
	// maxServed bounds the files that are given at a time: each is a goroutine and a descriptor.
	maxServed = 16
	// sendTimeout is how long a piece may wait for a peer that does not read.
	sendTimeout = time.Minute
)

// Dialer is what Peer needs of app.Client.
type Dialer interface {
	Dial(ctx context.Context, to key.Public, service string, header []byte) (*app.Stream, error)
}

// Peer is a release on another node of the mesh.
type Peer struct {
	Node Dialer
	Key  key.Public
}

// Open implements Source.
func (p Peer) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	s, err := p.Node.Dial(ctx, p.Key, ServiceName, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%s from %s: %w", name, p.Key.Short(), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	return &peerFile{s, stop}, nil
}

type peerFile struct {
	*app.Stream
	stop func() bool
}

func (p *peerFile) Read(b []byte) (int, error) {
	_ = p.SetReadDeadline(time.Now().Add(idleTimeout))
	return p.Stream.Read(b)
}

func (p *peerFile) Close() error {
	p.stop()
	return p.Stream.Close()
}

// Node is what Serve needs of app.Client.
type Node interface {
	Register(ctx context.Context, r app.Registration) error
	Accept(ctx context.Context, service string) (*app.Incoming, error)
}

// Serve gives the release in a folder to whom allow lets in, until ctx ends. Only what the manifest names is given. The folder is
// read anew for each file, so a newer release can be put there while this runs.
func Serve(ctx context.Context, node Node, dir Folder, allow []string, log *slog.Logger) error {
	service := app.Service{Name: ServiceName, Type: ServiceName, Allow: allow}
	if err := node.Register(ctx, app.Registration{Name: ServiceName, Kind: ServiceName, Services: []app.Service{service}}); err != nil {
		return fmt.Errorf("register with the node: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxServed) // full: refused
	for {
		in, err := node.Accept(ctx, ServiceName)
		if ctx.Err() != nil {
			if err == nil {
				_ = in.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			_ = in.Refuse("busy", "too many at once")
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			n, err := give(ctx, in, dir)
			if err != nil {
				log.Warn("release file not given", "peer", in.Peer.Short(), "name", string(in.Header), "err", err)
				return
			}
			log.Info("release file given", "peer", in.Peer.Short(), "name", string(in.Header), "bytes", n)
		})
	}
}

// give answers one stream.
func give(ctx context.Context, in *app.Incoming, dir Folder) (int64, error) {
	name := string(in.Header)
	if !dir.offers(ctx, name) {
		return 0, errors.Join(fmt.Errorf("%w: not in the manifest", ErrFile), in.Refuse("not_found", "the release has no such file"))
	}
	f, err := dir.Open(ctx, name)
	if err != nil {
		return 0, errors.Join(err, in.Refuse("not_found", "the release has no such file"))
	}
	defer f.Close()
	c, err := in.Accept(nil)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	var n int64
	for {
		_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
		k, err := io.CopyN(c, f, 64<<10)
		if n += k; errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// offers reports whether the name is one of the release's files.
func (f Folder) offers(ctx context.Context, name string) bool {
	if name == ManifestName || name == SignatureName {
		return true
	}
	raw, err := read(ctx, f, ManifestName, maxManifest)
	if err != nil {
		return false
	}
	m, err := ParseManifest([]byte(strings.TrimSpace(string(raw))))
	if err != nil {
		return false
	}
	for _, file := range m.Files {
		if file.Name == name {
			return true
		}
	}
	return false
}
