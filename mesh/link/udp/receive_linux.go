package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
)

const (
	// inboxSlots is how many datagrams one system call takes where the kernel makes no trains.
	inboxSlots = 16
	// slotRoom takes jumbo frames; memory of a slot that only short datagrams touched is never really used.
	slotRoom = 9216
)

// Receive reads one datagram or train into b, which should have 64 KiB. Where the kernel makes no trains, datagrams of one
// source and size that waited together become one here. The errors are bare: unix.EAGAIN when nothing is there,
// ErrTruncated.
func (s *Socket) Receive(b []byte) (forward.Arrival, error) {
	if s.inbox != nil && s.mmsg.Load() {
		a, err := s.inbox.receive(s.FD(), b)
		if err != unix.ENOSYS {
			return a, err
		}
		s.mmsg.Store(false)
	}
	return s.receiveOne(b)
}

func (s *Socket) receiveOne(b []byte) (forward.Arrival, error) {
	var (
		msg  unix.Msghdr
		iov  unix.Iovec
		name unix.RawSockaddrInet6 // the larger of the two
		c    control
	)
	iov.Base = unsafe.SliceData(b)
	iov.SetLen(len(b))
	msg.Name = (*byte)(unsafe.Pointer(&name))
	msg.Namelen = unix.SizeofSockaddrInet6
	msg.Iov = &iov
	msg.SetIovlen(1)
	msg.Control = &c.base()[0]
	msg.SetControllen(controlRoom)
	n, e := receive(unix.SYS_RECVMSG, s.FD(), unsafe.Pointer(&msg), unix.MSG_DONTWAIT, 0)
	if e != 0 {
		return forward.Arrival{}, e
	}
	if msg.Flags&unix.MSG_TRUNC != 0 {
		return forward.Arrival{}, ErrTruncated
	}
	segment, ecn := parseControl(c.base()[:min(int(msg.Controllen), controlRoom)])
	if segment <= 0 || segment > n {
		segment = n
	}
	return forward.Arrival{N: n, Seg: segment, From: parseAddr(&name), ECN: ecn}, nil
}

// receive makes one of the two calls, whose arguments differ from the second on.
func receive(call uintptr, fd int, p unsafe.Pointer, x, y uintptr) (int, unix.Errno) {
	for {
		n, _, e := unix.Syscall6(call, uintptr(fd), uintptr(p), x, y, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

// mmsghdr is the kernel's struct of this name; Go pads it the same way.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// inbox holds what one recvmmsg gave until Receive has handed it all out.
type inbox struct {
	at, end  int // slots not handed out
	msgs     [inboxSlots]mmsghdr
	iovs     [inboxSlots]unix.Iovec
	names    [inboxSlots]unix.RawSockaddrInet6
	controls [inboxSlots]control
	room     [inboxSlots][slotRoom]byte
}

func newInbox() *inbox {
	q := new(inbox)
	for i := range q.msgs {
		m := &q.msgs[i]
		q.iovs[i].Base = &q.room[i][0]
		q.iovs[i].SetLen(slotRoom)
		m.Name = (*byte)(unsafe.Pointer(&q.names[i]))
		m.Iov = &q.iovs[i]
		m.SetIovlen(1)
		m.Namelen = unix.SizeofSockaddrInet6
		m.Control = &q.controls[i].base()[0]
		m.SetControllen(controlRoom)
	}
	return q
}

// receive hands out a train, or one datagram, after asking the kernel for more where nothing is left.
func (q *inbox) receive(fd int, b []byte) (forward.Arrival, error) {
	if q.at == q.end {
		for i := range q.end { // the kernel wrote what it used
			q.msgs[i].Namelen = unix.SizeofSockaddrInet6
			q.msgs[i].SetControllen(controlRoom)
		}
		q.at, q.end = 0, 0
		n, e := receive(unix.SYS_RECVMMSG, fd, unsafe.Pointer(&q.msgs), inboxSlots, unix.MSG_DONTWAIT)
		if e != 0 {
			return forward.Arrival{}, e
		}
		q.end = n
	}
	first := &q.msgs[q.at]
	size := int(first.n)
	if first.Flags&unix.MSG_TRUNC != 0 || size > len(b) {
		q.at++
		return forward.Arrival{}, ErrTruncated
	}
	a := forward.Arrival{Seg: size, From: parseAddr(&q.names[q.at]), ECN: q.ecn(q.at)}
	for i := q.at; ; {
		a.N += copy(b[a.N:], q.room[i][:q.msgs[i].n])
		q.at++
		next := q.at
		if next == q.end || int(q.msgs[i].n) < size || !q.joins(next, i, size, len(b)-a.N, a.ECN) {
			return a, nil
		}
		i = next
	}
}

// joins says whether a datagram continues a train of that size which the one before it belongs to.
func (q *inbox) joins(i, before, size, room int, ecn uint8) bool {
	m := &q.msgs[i]
	n := int(m.n)
	return n > 0 && n <= size && n <= room && m.Flags&unix.MSG_TRUNC == 0 && q.names[i] == q.names[before] && q.ecn(i) == ecn
}

func (q *inbox) ecn(i int) uint8 {
	_, ecn := parseControl(q.controls[i].base()[:min(int(q.msgs[i].Controllen), controlRoom)])
	return ecn
}

// waiting says whether Receive has something that no poll of the descriptor shows.
func (s *Socket) waiting() bool { return s.inbox != nil && s.inbox.at < s.inbox.end }
