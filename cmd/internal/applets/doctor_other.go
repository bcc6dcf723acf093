//go:build !linux

package applets

import "errors"

func freeBytes(string) (uint64, error) { return 0, errors.ErrUnsupported }
func descriptorLimit() (uint64, error) { return 0, errors.ErrUnsupported }
func probeFirewall() error             { return errors.ErrUnsupported }
