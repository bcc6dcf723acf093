package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience bounds the wait for an answer that the kernel never gives: a signal can eat the answer to a batch.
	patience = 10 * time.Second
	// receiveSize holds the largest part of a list: the kernel sends at most 32 KiB at once to a reader of 32 KiB.
	receiveSize = 32 << 10
	// lists that change while the kernel reads them out are asked for again.
	listTries = 5
)

var (
	errChanged = errors.New("nf_tables changed while they were read")
	errAnswer  = errors.New("answer of nf_tables makes no sense")
)

// socket is a netlink socket in the network namespace of the calling thread.
type socket int

func open() (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("open netlink socket: %w", err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind netlink socket: %w", err)
	}
	return socket(fd), nil
}

func (s socket) close() { unix.Close(int(s)) }

func (s socket) send(b []byte) error {
	for {
		err := unix.Sendto(int(s), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive calls each for every message of the next datagram until it reports the end or an error.
func (s socket) receive(buf []byte, each func(m message) (end bool, err error)) (end bool, err error) {
	n, from, err := unix.Recvfrom(int(s), buf, 0)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("netlink: %w", err)
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return false, nil // another process may write to our port
	}
	for b := buf[:n]; len(b) > 0; {
		m, rest, err := nextMessage(b)
		if err != nil {
			return false, err
		}
		if end, err := each(m); end || err != nil {
			return end, err
		}
		b = rest
	}
	return false, nil
}

type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

// nextMessage cuts the first message off b.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return message{}, nil, errAnswer
	}
	length := uint64(binary.NativeEndian.Uint32(b))
	if length < unix.NLMSG_HDRLEN || length > uint64(len(b)) {
		return message{}, nil, errAnswer
	}
	m = message{
		kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
		seq: binary.NativeEndian.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:length],
	}
	return m, b[min(int(length)+padding(int(length)), len(b)):], nil
}

// errno is the status in the body of an error message or of one that ends a list; 0 is success.
func (m message) errno() error {
	if len(m.body) < 4 {
		return errAnswer
	}
	if n := -int32(binary.NativeEndian.Uint32(m.body)); n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// Commit sends the batch and empties it. Unless all of it could be done, nothing was, and the error is that of the
// first message that could not.
func (b *Batch) Commit() error {
	defer func() { *b = Batch{} }()
	if b.messages == 0 {
		return nil
	}
	last := beginSeq + b.messages - 1
	// Of the others the kernel tells only the faults: a long batch must not flood the socket with answers.
	flags := b.b[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	b.add(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.send(b.b); err != nil {
		return fmt.Errorf("send to nf_tables: %w", err)
	}
	buf := make([]byte, receiveSize)
	for {
		end, err := s.receive(buf, func(m message) (bool, error) {
			if m.kind != unix.NLMSG_ERROR || m.seq < beginSeq || m.seq > last {
				return false, nil // an echo
			}
			return m.seq == last, m.errno()
		})
		if end || err != nil {
			return err
		}
	}
}

// dump asks for a list and calls each for the body of every entry.
func dump(request uint16, answer uint16, t Table, attrs []byte, each func(body []byte)) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	const flags = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	if err := s.send(appendMessage(nil, tablesMessage(request), flags, beginSeq, t.Family, 0, attrs)); err != nil {
		return fmt.Errorf("send to nf_tables: %w", err)
	}
	buf := make([]byte, receiveSize)
	for {
		end, err := s.receive(buf, func(m message) (bool, error) {
			switch {
			case m.seq != beginSeq:
			case m.flags&unix.NLM_F_DUMP_INTR != 0:
				return true, errChanged
			case m.kind == unix.NLMSG_DONE, m.kind == unix.NLMSG_ERROR:
				return true, m.errno()
			case m.kind == tablesMessage(answer) && len(m.body) >= 4:
				each(m.body)
			}
			return false, nil
		})
		if end || err != nil {
			return err
		}
	}
}
