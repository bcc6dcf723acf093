package applets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

func descriptorLimit() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return uint64(l.Max), nil // Go raises the soft limit to it
}

// Of linux/netfilter/nfnetlink.h and nf_tables.h.
const (
	netfilterFamily = 12 // NETLINK_NETFILTER
	getGeneration   = 10<<8 | 16
)

// probeFirewall asks nf_tables for its generation: the smallest question there is, and it makes the kernel load the module.
func probeFirewall() error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netfilterFamily)
	if err != nil {
		return os.NewSyscallError("netlink socket", err)
	}
	defer syscall.Close(fd)
	limit := syscall.NsecToTimeval(int64(2 * time.Second))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	q := make([]byte, syscall.SizeofNlMsghdr+4) // nfgenmsg: family, version, resource id
	binary.NativeEndian.PutUint32(q[0:], uint32(len(q)))
	binary.NativeEndian.PutUint16(q[4:], getGeneration)
	binary.NativeEndian.PutUint16(q[6:], syscall.NLM_F_REQUEST)
	if err := syscall.Sendto(fd, q, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink send", err)
	}
	var b [4096]byte
	n, _, err := syscall.Recvfrom(fd, b[:], 0)
	if err != nil {
		return os.NewSyscallError("netlink receive", err)
	}
	all, err := syscall.ParseNetlinkMessage(b[:n])
	if err != nil || len(all) == 0 {
		return errors.Join(errors.New("nftables: no answer"), err)
	}
	m := all[0]
	if m.Header.Type != syscall.NLMSG_ERROR || len(m.Data) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
		return fmt.Errorf("nftables: %w", syscall.Errno(-code))
	}
	return nil
}
