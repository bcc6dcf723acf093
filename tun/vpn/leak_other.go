//go:build !linux

package vpn

import (
	"context"
	"errors"
	"net/netip"
)

// leakWatch cannot listen here.
type leakWatch struct{}

type leakTry struct {
	Leak
	token string
	send  func()
}

func openLeakWatch(string) (*leakWatch, error) { return nil, errors.ErrUnsupported }

func (*leakWatch) close()                                      {}
func (*leakWatch) names() []string                             { return nil }
func (*leakWatch) seen(string) (int, string)                   { return 0, "" }
func (*leakWatch) proof(context.Context, uint32) (bool, error) { return false, errors.ErrUnsupported }
func (*leakWatch) attempts([]netip.Addr) []*leakTry            { return nil }
