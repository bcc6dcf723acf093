//go:build !unix

package auto

import (
	"errors"
	"fmt"
	"net"
)

// inherit is not supported here: the program joins at the address.
func inherit(int) net.Conn { return nil }

func terminateSelf() error { return fmt.Errorf("SIGTERM to itself: %w", errors.ErrUnsupported) }
