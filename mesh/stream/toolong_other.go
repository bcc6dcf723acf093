//go:build !linux && !windows

package stream

import "syscall"

const errTooLong = syscall.EMSGSIZE
