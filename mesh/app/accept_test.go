package app_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// script is a source that answers what it is told, then waits.
type script struct {
	answers []error // nil: a stream
	at      []time.Duration
	began   time.Time
}

func (s *script) AcceptStream(ctx context.Context, _ string) (key.Public, io.ReadWriteCloser, error) {
	if len(s.answers) == 0 {
		<-ctx.Done()
		return key.Public{}, nil, ctx.Err()
	}
	s.at = append(s.at, time.Since(s.began))
	err := s.answers[0]
	s.answers = s.answers[1:]
	if err != nil {
		return key.Public{}, nil, err
	}
	a, b := net.Pipe()
	b.Close()
	return key.Public{7}, a, nil
}

func TestServeStreams(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for _, tc := range []struct {
		name    string
		answers []error
		served  int
		at      time.Duration // of the last answer
		err     error
	}{
		{"streams", []error{nil, nil, nil}, 3, 0, nil},
		{"node away", []error{nil, away, away, nil}, 2, 2 * time.Second, nil},
		{"closed", []error{nil, app.ErrClosed}, 1, 0, app.ErrClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				s := &script{answers: tc.answers, began: time.Now()}
				served := 0
				err := app.ServeStreams(ctx, s, "x", slog.New(slog.DiscardHandler), func(peer key.Public, rw io.ReadWriteCloser) {
					served++
					rw.Close()
					if peer != (key.Public{7}) {
						t.Errorf("a stream of %v", peer)
					}
				})
				if !errors.Is(err, tc.err) || served != tc.served || s.at[len(s.at)-1] != tc.at {
					t.Errorf("%v, %d streams served, the last answer at %v; want %v, %d, %v", err, served, s.at[len(s.at)-1], tc.err, tc.served, tc.at)
				}
			})
		})
	}
}
