package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skywire/mesh/meshtest/emulator"
)

// BadWire joins two boxes by a link that loses, delays and so on: ab is what happens from a to b. It ends with the lab.
func (l *Lab) BadWire(a, b End, ab, ba emulator.Profile, seed uint64) (*emulator.Link, error) {
	fa, err := a.tap()
	if err != nil {
		return nil, err
	}
	fb, err := b.tap()
	if err != nil {
		return nil, errors.Join(err, fa.Close())
	}
	link, err := emulator.NewLink(fa, fb, ab, ba, seed)
	if err != nil {
		return nil, errors.Join(err, fa.Close(), fb.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends at Close
		defer close(done)
		if err := link.Run(ctx); err != nil {
			l.Logf("bad wire %s-%s: %v", a.Box.Name, b.Box.Name, err)
		}
	}()
	l.mu.Lock()
	l.stops = append(l.stops, func() { cancel(); <-done })
	l.mu.Unlock()
	for _, e := range []End{a, b} {
		if err := e.configure(); err != nil {
			return nil, fmt.Errorf("bad wire %s-%s: %w", a.Box.Name, b.Box.Name, err)
		}
	}
	return link, nil
}

func (e End) tap() (f *os.File, err error) {
	err = e.Box.Enter(func() error {
		f, err = emulator.OpenTAP(e.Dev)
		return err
	})
	return f, err
}
