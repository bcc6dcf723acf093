package udp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outboxSlots is how many datagrams one system call sends where the kernel cuts no trains.
const outboxSlots = 32

// destination is what all messages of a train share.
type destination struct {
	name unix.RawSockaddrInet6
	size uint32
	v4   bool
	ecn  uint8
	wait bool // up to sendWait for room
}

// Send sends train, in datagrams of seg bytes, the last maybe shorter, with that ECN field. It waits up to 2 ms for room.
// The errors are bare: unix.EAGAIN when there was none and the rest of the train is dropped, unix.EMSGSIZE when a datagram
// is too large for the device, ErrAddress.
func (s *Socket) Send(to netip.AddrPort, train []byte, seg int, ecn uint8) error {
	_, err := s.try(to, train, seg, ecn, true)
	return err
}

// TrySend is Send without waiting: what it returns of the train went, in whole datagrams, and unix.EAGAIN says that the
// socket is full.
func (s *Socket) TrySend(to netip.AddrPort, train []byte, seg int, ecn uint8) (int, error) {
	return s.try(to, train, seg, ecn, false)
}

func (s *Socket) try(to netip.AddrPort, train []byte, seg int, ecn uint8, wait bool) (sent int, err error) {
	if seg <= 0 || seg > len(train) {
		seg = len(train)
	}
	d := destination{ecn: ecn, wait: wait}
	var ok bool
	if d.size, ok = s.putAddr(&d.name, to); !ok {
		return 0, ErrAddress
	}
	d.v4 = to.Addr().Is4() || to.Addr().Is4In6()
	refused := unix.Errno(0)
	for len(train)-sent > seg && refused == 0 && s.gso.Load() {
		n := min(MaxSegments, MaxTrain/seg) * seg
		if n <= seg {
			break
		}
		part := train[sent:min(sent+n, len(train))]
		switch err := s.sendOne(&d, part, seg); err {
		case 0:
			sent += len(part)
		case unix.EIO: // a device without checksum offload, before Linux 6.11
			s.refuse(err)
		case unix.EINVAL:
			refused = err // too long for the device in older kernels, or really no UDP_SEGMENT: one by one tells
		default:
			return sent, err
		}
	}
	n, e := s.sendPlain(&d, train[sent:], seg)
	if sent += n; e != 0 {
		return sent, e
	}
	if refused != 0 {
		s.refuse(refused)
	}
	return sent, nil
}

// refuse turns trains off for good.
func (s *Socket) refuse(why unix.Errno) {
	s.refused.Store(uint32(why))
	s.gso.Store(false)
}

// sendPlain sends what the kernel shall not cut, and returns how many bytes went.
func (s *Socket) sendPlain(d *destination, train []byte, seg int) (sent int, err unix.Errno) {
	for len(train)-sent > seg && s.mmsg.Load() {
		n, err := s.sendMany(d, train[sent:], seg)
		if err == unix.ENOSYS {
			s.mmsg.Store(false)
			break
		}
		if err != 0 {
			return sent, err
		}
		sent = min(sent+n*seg, len(train))
	}
	for sent < len(train) {
		part := train[sent:min(sent+seg, len(train))]
		if err := s.sendOne(d, part, 0); err != 0 {
			return sent, err
		}
		sent += len(part)
	}
	return sent, 0
}

// sendOne makes the system call for one message; segment 0 sends it as one datagram. errno 0 is success.
func (s *Socket) sendOne(d *destination, b []byte, segment int) unix.Errno {
	var (
		msg unix.Msghdr
		iov unix.Iovec
		c   control
	)
	if segment > 0 {
		c.segment(segment)
	}
	if d.ecn != 0 {
		c.ecn(d.ecn, d.v4)
	}
	msg.Name = (*byte)(unsafe.Pointer(&d.name))
	msg.Namelen = d.size
	msg.Control = c.all()
	msg.SetControllen(c.n)
	iov.Base = unsafe.SliceData(b)
	iov.SetLen(len(b))
	msg.Iov = &iov
	msg.SetIovlen(1)
	_, e := s.send(unix.SYS_SENDMSG, unsafe.Pointer(&msg), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, d.wait)
	return e
}

// sendMany sends the head of a train by one system call, and returns how many datagrams went.
func (s *Socket) sendMany(d *destination, train []byte, seg int) (int, unix.Errno) {
	var (
		msgs [outboxSlots]mmsghdr
		iovs [outboxSlots]unix.Iovec
		c    control
		n    int
	)
	if d.ecn != 0 {
		c.ecn(d.ecn, d.v4)
	}
	for ; n < outboxSlots && len(train) > 0; n++ {
		part := train[:min(seg, len(train))]
		train = train[len(part):]
		// Not through a pointer to the message: what is stored through one escapes to the heap.
		msgs[n].Name = (*byte)(unsafe.Pointer(&d.name))
		msgs[n].Namelen = d.size
		msgs[n].Control = c.all()
		msgs[n].SetControllen(c.n)
		msgs[n].Iov = &iovs[n]
		msgs[n].SetIovlen(1)
		iovs[n].Base = &part[0]
		iovs[n].SetLen(len(part))
	}
	// An error after the first datagram comes back with the next call, which begins at the one refused.
	return s.send(unix.SYS_SENDMMSG, unsafe.Pointer(&msgs), uintptr(n), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, d.wait)
}

// send makes one of the two calls, whose arguments differ from the second on, and waits once for room if it may. One that
// may not is told of ENOBUFS as it is: the device has no room though the socket has, so polling it would be a busy loop.
func (s *Socket) send(call uintptr, p unsafe.Pointer, x, y uintptr, wait bool) (int, unix.Errno) {
	waited := false
	for {
		n, _, e := unix.Syscall6(call, uintptr(s.FD()), uintptr(p), x, y, 0, 0)
		switch {
		case e == unix.EINTR:
			continue
		case (e == unix.EAGAIN || e == unix.ENOBUFS) && wait && !waited:
			waited = true
			s.waitWritable()
			continue
		case e == unix.ENOBUFS && wait:
			e = unix.EAGAIN
		}
		return int(n), e
	}
}

// waitWritable waits for room, or for sendWait to pass.
func (s *Socket) waitWritable() {
	p := [1]unix.PollFd{{Fd: s.fd.Load(), Events: unix.POLLOUT}}
	_, _ = unix.Poll(p[:], int(sendWait.Milliseconds()))
}
