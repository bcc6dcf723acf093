package lab

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// End is one end of a wire: an interface in a box with its addresses (CIDR, v4 or v6).
type End struct {
	Box   *Box
	Dev   string
	Addrs []string
}

// Wire joins two boxes with a veth pair, up and addressed.
func (l *Lab) Wire(a, b End) error {
	err := command("ip", "link", "add", a.Dev, "netns", a.Box.NS, "type", "veth", "peer", "name", b.Dev, "netns", b.Box.NS)
	if err != nil {
		return fmt.Errorf("wire %s-%s: %w", a.Box.Name, b.Box.Name, err)
	}
	for _, e := range []End{a, b} {
		if err := e.configure(); err != nil {
			return fmt.Errorf("wire %s-%s: %w", a.Box.Name, b.Box.Name, err)
		}
	}
	return nil
}

func (e End) configure() error {
	for _, addr := range e.Addrs {
		if err := e.Box.IP("addr add " + addr + " dev " + e.Dev); err != nil {
			return err
		}
	}
	return e.Box.IP("link set dev " + e.Dev + " up")
}

// Switch makes box an Ethernet switch named dev and plugs each end into it.
func (l *Lab) Switch(box *Box, dev string, ends ...End) error {
	if err := box.IP("link add " + dev + " type bridge forward_delay 0"); err != nil {
		return err
	}
	if err := box.IP("link set " + dev + " up"); err != nil {
		return err
	}
	for i, e := range ends {
		port := fmt.Sprintf("%s-p%d", dev, i)
		if err := l.Wire(End{Box: box, Dev: port}, e); err != nil {
			return err
		}
		if err := box.IP("link set " + port + " master " + dev); err != nil {
			return err
		}
	}
	return nil
}

// Enter runs open inside the box's namespace, on a thread that ends with it: descriptors that it opens keep working
// everywhere. open must not start goroutines that need the namespace; they would run at home.
func (b *Box) Enter(open func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the wrong namespace and must end
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end: Go would park it in the box's namespace for good, and the whole process
			// would count as one of the box's. While this goroutine holds it, the next one gets another thread.
			defer runtime.UnlockOSThread()
			done <- b.Enter(open)
			return
		}
		done <- b.enterThread(open)
	}()
	return <-done
}

// enterThread moves the calling thread into the box's namespace and runs open.
func (b *Box) enterThread(open func() error) error {
	fd, err := unix.Open("/run/netns/"+b.NS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter %s: %w", b.Name, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", b.Name, err)
	}
	return open()
}
