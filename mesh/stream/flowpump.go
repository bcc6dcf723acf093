package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// flowBatch is how many packets go to a program in one write.
const flowBatch = 64

// flowPump moves the packets of one flow and one connection.
type flowPump struct {
	flow           *Flow
	conn           net.Conn
	framed         bool
	sent, received atomic.Uint64
	rest           []byte // of a message whose end has not been read
}

// PumpFlow joins a flow and a local connection until either ends, and closes both. On a connection of bytes each packet
// goes behind its length (u16, big endian); a connection of packets (a UDP socket that is connected) has them as they are,
// and there errors that ICMP reports of the other end count as lost packets. It returns the payload bytes that went into
// the flow and came out of it.
func PumpFlow(ctx context.Context, f *Flow, conn net.Conn, framed bool) (sent, received uint64, err error) {
	p := &flowPump{flow: f, conn: conn, framed: framed}
	stop := context.AfterFunc(ctx, func() { p.end() })
	defer stop()
	var up, in error
	var other sync.WaitGroup
	other.Go(func() { up = p.up(); p.end() })
	other.Go(func() { in = f.receiveInStream() })
	p.down()
	p.end()
	other.Wait()
	if up = unlessClosed(up); up == nil {
		up = unlessClosed(in)
	}
	return p.sent.Load(), p.received.Load(), up
}

// unlessClosed leaves out what is only one side's Close.
func unlessClosed(err error) error {
	var reset *ResetError
	if errors.Is(err, ErrClosed) || errors.As(err, &reset) && (!reset.Remote || reset.Code == CodeNone) {
		return nil
	}
	return err
}

// end closes both sides, which ends the three goroutines.
func (p *flowPump) end() {
	p.flow.Close()
	p.conn.Close()
}

// up sends what the program writes.
func (p *flowPump) up() error {
	read := chunkReader(p.conn)
	if !p.framed {
		read = p.datagrams()
	}
	for {
		b, err := read()
		if b != nil {
			serr := p.send(b.bytes())
			b.free()
			if serr != nil {
				return serr
			}
		}
		switch {
		case err == nil || !p.framed && isUnreachable(err):
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
	}
}

// datagrams reads a packet at a time, of whatever length.
func (p *flowPump) datagrams() func() (*chunk, error) {
	big := make([]byte, MaxFlowPacket) // touched only as far as packets reach
	return func() (*chunk, error) {
		n, err := p.conn.Read(big)
		if err != nil {
			return nil, err
		}
		if err := p.sendOne(big[:n]); err != nil {
			return nil, err
		}
		return nil, nil
	}
}

// isUnreachable is what ICMP says of a socket that is connected: the next packet may arrive.
func isUnreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

func (p *flowPump) sendOne(b []byte) error {
	if err := p.flow.Send(b); err != nil {
		return err
	}
	p.sent.Add(uint64(len(b)))
	p.flow.stream.tally.send(int64(len(b)))
	return nil
}

// send sends the messages in b, and keeps what is left for the next time.
func (p *flowPump) send(b []byte) error {
	for len(b) > 0 {
		if len(p.rest) > 0 { // complete the one that was cut
			need := 2
			if len(p.rest) >= 2 {
				need += int(binary.BigEndian.Uint16(p.rest))
			}
			n := min(need-len(p.rest), len(b))
			p.rest, b = append(p.rest, b[:n]...), b[n:]
			if len(p.rest) < 2 || len(p.rest) < 2+int(binary.BigEndian.Uint16(p.rest)) {
				continue
			}
			if err := p.sendOne(p.rest[2:]); err != nil {
				return err
			}
			if p.rest = p.rest[:0]; cap(p.rest) > flowKeep {
				p.rest = nil
			}
			continue
		}
		n := 2
		if len(b) >= 2 {
			n += int(binary.BigEndian.Uint16(b))
		}
		if len(b) < n {
			p.rest = append(p.rest, b...)
			return nil
		}
		if err := p.sendOne(b[2:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// down gives the program what arrives.
func (p *flowPump) down() {
	var batch [flowBatch][]byte
	for {
		packets := p.flow.queue.get(batch[:0])
		if packets == nil {
			return
		}
		for _, b := range packets {
			p.received.Add(uint64(len(b)))
			p.flow.stream.tally.receive(int64(len(b)))
		}
		if err := p.write(packets); err != nil {
			return
		}
		clear(packets)
	}
}

// write gives packets to the program, framed ones in as few writes as a buffer allows.
func (p *flowPump) write(packets [][]byte) error {
	if !p.framed {
		for _, b := range packets {
			if _, err := p.conn.Write(b); err != nil && !isUnreachable(err) && !errors.Is(err, syscall.EMSGSIZE) {
				return err
			}
		}
		return nil
	}
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	out := buf[:0]
	for _, b := range packets {
		if len(out)+2+len(b) > len(buf) && len(out) > 0 {
			if _, err := p.conn.Write(out); err != nil {
				return err
			}
			out = buf[:0]
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(b)))
		if len(out)+len(b) > len(buf) { // longer than the buffer
			if _, err := p.conn.Write(out); err != nil {
				return err
			}
			out = buf[:0]
			if _, err := p.conn.Write(b); err != nil {
				return err
			}
			continue
		}
		out = append(out, b...)
	}
	if len(out) == 0 {
		return nil
	}
	_, err := p.conn.Write(out)
	return err
}
