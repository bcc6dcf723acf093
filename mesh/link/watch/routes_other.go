//go:build !linux

package watch

import (
	"context"
	"errors"
	"fmt"
)

// subscribe can't: the caller polls.
func subscribe(context.Context, chan<- struct{}) error {
	return fmt.Errorf("messages of the kernel about its network: %w", errors.ErrUnsupported)
}

// addRoutes adds none: here only addresses are compared, and no gateway is known.
func (s *State) addRoutes() error { return nil }
