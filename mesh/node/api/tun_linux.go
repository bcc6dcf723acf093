package api

import (
	"os"

	"golang.org/x/sys/unix"
)

// The numbers of /dev/net/tun, from Documentation/admin-guide/devices.txt of the kernel.
const (
	tunMajor = 10
	tunMinor = 200
)

// checkTUN makes sure that a descriptor is an attached queue of the device it is said to be.
func checkTUN(f *os.File, device string) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	var serr error
	var name string
	err = rc.Control(func(fd uintptr) {
		if serr = unix.Fstat(int(fd), &st); serr != nil {
			return
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(uint64(st.Rdev)) != tunMajor || unix.Minor(uint64(st.Rdev)) != tunMinor {
			serr = errNotTUN(f, "not /dev/net/tun")
			return
		}
		var ifr *unix.Ifreq
		if ifr, serr = unix.NewIfreq(""); serr != nil {
			return
		}
		if serr = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr); serr == nil {
			name = ifr.Name()
		}
	})
	switch {
	case err != nil:
		return err
	case serr != nil:
		return errNotTUN(f, "%v", serr)
	case name != device:
		return errNotTUN(f, "is device %q, not %q", name, device)
	}
	return nil
}
