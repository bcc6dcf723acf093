//go:build !linux

package tun

import (
	"errors"
	"os"
)

// Create makes a TUN device; here it returns errors.ErrUnsupported.
func Create(Config) (*os.File, string, error) { return nil, "", errors.ErrUnsupported }

// AddQueue opens a further queue; here it returns errors.ErrUnsupported.
func AddQueue(Config, string) (*os.File, error) { return nil, errors.ErrUnsupported }

// FromFile wraps a passed descriptor; here it returns errors.ErrUnsupported and leaves f open.
func FromFile(*os.File, int) (Device, error) { return nil, errors.ErrUnsupported }

// Available says why no TUN device can be made, or nil.
func Available() error { return errors.ErrUnsupported }

func noDevice(error) bool { return false }
