//go:build !unix

package app

import (
	"errors"
	"net"
	"os"
)

func Duplicate(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

func hungUp(*net.UnixConn) bool { return false }

func someWriter(c *net.UnixConn) func(b []byte) (int, error) { return c.Write }
