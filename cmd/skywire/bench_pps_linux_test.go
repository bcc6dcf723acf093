//go:build bench

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How many UDP packets a second pass with less than 1 % lost. The sender is one thread with sendmmsg, which wakes up every
// paceTick and sends what the rate asks for since then; the sink is one thread with recvmmsg and a socket of 8 MB, so that
// the two take little of the machine and nothing is lost in them. A flood tells what passes when nobody is careful, and
// bounds the search: then the rate is bisected to ppsClose, each step ppsStep long and, when it lost too much, tried up to
// ppsTries times, because a busy machine takes a processor away for milliseconds. What is still in a queue drainLimit after the last
// datagram left counts as lost, so that no buffer passes for a rate. The answer is the best rate that passed.
const (
	ppsStep    = 300 * time.Millisecond
	ppsRead    = 500 * time.Millisecond // how long the cost a packet is read
	ppsClose   = 0.04                   // the search ends when its bounds are this near to each other
	ppsLoss    = 0.01
	ppsTries   = 3
	ppsBatch   = 32
	paceTick   = 200 * time.Microsecond
	drainLimit = 20 * time.Millisecond
)

// mmsghdr is the kernel's struct mmsghdr; Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	_   uint32 // bytes of the message: each is as long as its buffer
}

// batch is ppsBatch messages of one buffer each.
type batch struct {
	msgs [ppsBatch]mmsghdr
	vecs [ppsBatch]unix.Iovec
	bufs [ppsBatch][]byte
}

func newBatch(size int) *batch {
	b := &batch{}
	for i := range b.msgs {
		b.bufs[i] = make([]byte, size)
		b.vecs[i].Base = &b.bufs[i][0]
		b.vecs[i].SetLen(size)
		b.msgs[i].hdr.Iov = &b.vecs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// exchange is sendmmsg or recvmmsg of the first n messages.
func (b *batch) exchange(trap uintptr, fd, n, flags int) (int, error) {
	done, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs)), uintptr(n), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(done), nil
}

// blaster sends numbered datagrams from one box to another and counts what arrives.
type blaster struct {
	t        testing.TB
	out, in  int
	outCPU   int // the processor of the sender's box, -1: any
	send     *batch
	run      uint64        // marks the datagrams of one run
	counting atomic.Uint64 // the run that counts
	received atomic.Uint64
}

// newBlaster opens both sockets; size is the UDP payload.
func (p *bench) newBlaster(from, to string, addr netip.Addr, size int) *blaster {
	p.t.Helper()
	b := &blaster{t: p.t, send: newBatch(size), outCPU: p.cpuOf(from)}
	var port int
	b.in, port = p.benchSocket(to, netip.AddrPortFrom(unspecified(addr), 0), false)
	b.out, _ = p.benchSocket(from, netip.AddrPortFrom(addr, uint16(port)), true)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { onCPU(p.cpuOf(to), func() { b.swallow(ctx) }) })
	p.t.Cleanup(func() {
		cancel()
		work.Wait()
		_, _ = unix.Close(b.out), unix.Close(b.in)
	})
	return b
}

// cpuOf is the processor that a box is held to, or -1.
func (p *bench) cpuOf(box string) int {
	if cpu, ok := p.pins[box]; ok {
		return cpu
	}
	return -1
}

// onCPU runs work on a thread of its own, held to a processor unless that is -1.
func onCPU(cpu int, work func()) {
	done := make(chan struct{})
	go func() { // ends with work
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			_ = unix.SchedSetaffinity(0, &set)
		}
		work()
	}()
	<-done
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// benchSocket opens a UDP socket in a box, bound to addr or connected to it, and returns its port.
func (p *bench) benchSocket(box string, addr netip.AddrPort, connect bool) (fd, port int) {
	p.t.Helper()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	p.must(p.box[box].Enter(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if connect {
			return unix.Connect(fd, sa)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
			return err
		}
		return unix.Bind(fd, sa)
	}))
	name, err := unix.Getsockname(fd)
	p.must(err)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		port = name.Port
	case *unix.SockaddrInet6:
		port = name.Port
	}
	return fd, port
}

// swallow counts the datagrams of the run that counts.
func (b *blaster) swallow(ctx context.Context) {
	in := newBatch(2048)
	for ctx.Err() == nil {
		n, err := in.exchange(unix.SYS_RECVMMSG, b.in, ppsBatch, unix.MSG_DONTWAIT)
		if err != nil {
			p := [1]unix.PollFd{{Fd: int32(b.in), Events: unix.POLLIN}}
			_, _ = unix.Poll(p[:], 50)
			continue
		}
		run := b.counting.Load()
		for i := range n {
			if binary.NativeEndian.Uint64(in.bufs[i]) == run {
				b.received.Add(1)
			}
		}
	}
}

// blast sends at a rate (0: as fast as it can) and returns packets a second offered and delivered.
func (b *blaster) blast(rate float64, d time.Duration) (offered, delivered float64) {
	onCPU(b.outCPU, func() { offered, delivered = b.pour(rate, d) })
	return offered, delivered
}

func (b *blaster) pour(rate float64, d time.Duration) (offered, delivered float64) {
	b.run++
	b.received.Store(0)
	b.counting.Store(b.run)
	for i := range b.send.bufs {
		binary.NativeEndian.PutUint64(b.send.bufs[i], b.run)
	}
	start, sent := time.Now(), 0
	for {
		took := time.Since(start)
		if took >= d {
			break
		}
		due := ppsBatch
		if rate > 0 {
			if due = int(rate*took.Seconds()) - sent; due <= 0 {
				pause(paceTick)
				continue
			}
		}
		n, err := b.send.exchange(unix.SYS_SENDMMSG, b.out, min(due, ppsBatch), 0)
		switch {
		case err == nil:
			sent += n
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN): // a device's queue was full: lost
			sent += min(due, ppsBatch)
		case errors.Is(err, unix.EINTR):
		default:
			b.t.Fatalf("send: %v", err)
		}
	}
	took := time.Since(start)
	pause(drainLimit)
	counted := b.received.Load()
	for got, quiet := counted, 0; quiet < 4; quiet++ { // the next run starts with empty queues
		if pause(5 * time.Millisecond); b.received.Load() != got {
			got, quiet = b.received.Load(), 0
		}
	}
	return float64(sent) / took.Seconds(), float64(counted) / took.Seconds()
}

// search returns the best rate with a loss below ppsLoss, and what a flood delivers.
func (b *blaster) search() (best, flood float64) {
	most := 0.0
	for range 2 {
		offered, delivered := b.blast(0, ppsStep)
		most, flood = max(most, offered), max(flood, delivered)
		if offered-delivered < ppsLoss*offered {
			best = max(best, delivered)
		}
	}
	if best > 0 {
		return best, flood // nobody offered more
	}
	low, high := 0.0, min(most, flood*1.5)
	for high-low > ppsClose*high {
		rate := (low + high) / 2
		if low == 0 {
			rate = high * 0.7
		}
		if n := b.passes(rate); n > 0 {
			best, low = max(best, n), rate
		} else {
			high = rate
		}
	}
	return best, flood
}

// passes returns what was delivered of a rate if that was offered and passed, or 0.
func (b *blaster) passes(rate float64) float64 {
	for range ppsTries {
		offered, delivered := b.blast(rate, ppsStep)
		if offered > (1-ppsClose)*rate && offered-delivered < ppsLoss*offered {
			return delivered
		}
	}
	return 0
}

// pause gives the processor away; the runtime's timers are a millisecond coarse when it has nothing else to do.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil)
}
