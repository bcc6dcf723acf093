//go:build !unix

package api

import (
	"context"
	"errors"
	"net"
	"os"
)

func waitReadable(*net.UnixConn) error { return errors.ErrUnsupported }

func watch(*net.UnixConn, context.CancelFunc) (stop func()) { return func() {} }

func passedSocket(*os.File, bool) (net.Conn, error) { return nil, errors.ErrUnsupported }
