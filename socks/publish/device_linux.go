package publish

import (
	"os"
	"syscall"
)

// bindToDevice lets only packets of one device reach a socket. A socket that is bound to none yet needs no rights for it.
func bindToDevice(fd uintptr, device string) error {
	return os.NewSyscallError("bind to "+device, syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, device))
}
