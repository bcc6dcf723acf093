//go:build !linux

package api

import (
	"errors"
	"os"
)

func checkTUN(*os.File, string) error { return errors.ErrUnsupported }
