package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
)

// maxEvents is how many descriptors one Wait reports; a loop has few.
const maxEvents = 32

// wakeID marks the eventfd in an epoll event; ids of sources are not negative.
const wakeID = -1

// Poller is an epoll set with an eventfd to wake it. It implements forward.Poller.
type Poller struct {
	epoll, wake int
	events      [maxEvents]unix.EpollEvent
	inboxes     []watched // sockets that may hold what epoll does not see

	mu     sync.Mutex // guards closed, and keeps wake open while it is written to
	closed bool
}

type watched struct {
	id int
	s  *Socket
}

// NewPoller makes an empty poller.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &Poller{epoll: epoll, wake: wake}
	if err := p.control(unix.EPOLL_CTL_ADD, wake, wakeID, unix.EPOLLIN); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// control puts the id where epoll gives it back: an event's descriptor number may have been used again by then.
func (p *Poller) control(op, fd, id int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(id)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, op, fd, &e))
}

// Add watches s for reading.
func (p *Poller) Add(id int, s forward.Source) error {
	if u, ok := s.(*Socket); ok && u.inbox != nil {
		p.inboxes = append(p.inboxes, watched{id, u})
	}
	return p.control(unix.EPOLL_CTL_ADD, s.FD(), id, unix.EPOLLIN)
}

// Interest changes what s is watched for.
func (p *Poller) Interest(id int, s forward.Source, read, write bool) error {
	var events uint32
	if read {
		events |= unix.EPOLLIN
	}
	if write {
		events |= unix.EPOLLOUT
	}
	return p.control(unix.EPOLL_CTL_MOD, s.FD(), id, events)
}

// Remove stops watching s, which must still be open.
func (p *Poller) Remove(s forward.Source) error {
	for i, w := range p.inboxes {
		if forward.Source(w.s) == s {
			p.inboxes = append(p.inboxes[:i], p.inboxes[i+1:]...)
			break
		}
	}
	return p.control(unix.EPOLL_CTL_DEL, s.FD(), 0, 0)
}

// Wait blocks until something is ready. The count includes a wake-up, whose event says nothing.
func (p *Poller) Wait() (int, error) {
	n, err := p.wait(p.forever())
	if err != nil {
		return 0, err
	}
	for _, w := range p.inboxes {
		if w.s.waiting() && n < maxEvents {
			p.events[n] = unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.id)}
			n++
		}
	}
	return n, nil
}

// forever is how long epoll may block: not at all while a socket holds datagrams already.
func (p *Poller) forever() int {
	for _, w := range p.inboxes {
		if w.s.waiting() {
			return 0
		}
	}
	return -1
}

func (p *Poller) wait(timeout int) (int, error) {
	for {
		n, err := unix.EpollWait(p.epoll, p.events[:], timeout)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("epoll_wait", err)
		}
		for i := range n {
			if p.events[i].Fd == wakeID {
				var b [8]byte
				_, _ = unix.Read(p.wake, b[:])
			}
		}
		return n, nil
	}
}

// Event returns the i-th event of the last Wait. id -1, with nothing set, was Wake.
func (p *Poller) Event(i int) (id int, read, write, broken bool) {
	e := &p.events[i]
	if e.Fd == wakeID {
		return wakeID, false, false, false
	}
	return int(e.Fd), e.Events&unix.EPOLLIN != 0, e.Events&unix.EPOLLOUT != 0,
		e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0
}

// Wake makes Wait return. It may be called from any goroutine at any time; after Close it does nothing.
func (p *Poller) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	_, _ = unix.Write(p.wake, b[:]) // EAGAIN: it is awake already
}

// Close ends the poller.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := errors.Join(unix.Close(p.wake), unix.Close(p.epoll))
	if err != nil {
		return fmt.Errorf("close poller: %w", err)
	}
	return nil
}
