package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// offloads are what the kernel may leave undone in a packet that it hands over: the other device hands it back as it is.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6

// runCopy joins two TUN devices of the same name in two namespaces: what any tunnel in user space pays at least.
func runCopy(name, from, to string) error {
	var fds [2]int
	for i, ns := range []string{from, to} {
		fd, err := openIn(ns, name)
		if err != nil {
			return err
		}
		fds[i] = fd
	}
	var work sync.WaitGroup
	var failed [2]error
	for i := range fds {
		work.Go(func() { failed[i] = pump(fds[i], fds[1-i]) })
	}
	go func() { // ends with the process
		untilStopped()
		os.Exit(0)
	}()
	work.Wait()
	return failed[0]
}

// openIn opens a device in a namespace, on a thread that is not used again.
func openIn(ns, name string) (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends in the wrong namespace
		fd, err = open(ns, name)
	}()
	<-done
	return fd, err
}

func open(ns, name string) (int, error) {
	at, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("namespace %s: %w", ns, err)
	}
	defer unix.Close(at)
	if err := unix.Setns(at, unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("enter %s: %w", ns, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		return 0, fmt.Errorf("make %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		return 0, fmt.Errorf("offloads of %s: %w", name, err)
	}
	return fd, nil
}

// pump copies packets, whatever their size, one read and one write each.
func pump(from, to int) error {
	buf := make([]byte, 10+1<<16)
	for {
		n, err := unix.Read(from, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		_, _ = unix.Write(to, buf[:n]) // a device that is down or full drops it
	}
}
