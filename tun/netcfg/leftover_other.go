//go:build !linux

package netcfg

import (
	"errors"
	"log/slog"
)

// Leftovers returns errors.ErrUnsupported.
func Leftovers(string) ([]Leftover, error) { return nil, errors.ErrUnsupported }

// Repair returns errors.ErrUnsupported.
func Repair(string, *slog.Logger) ([]Leftover, error) { return nil, errors.ErrUnsupported }
