package vpn

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// errEchoRights is returned by echo without the right to a raw socket.
var errEchoRights = errors.New("no right to a raw socket")

const (
	icmpEcho      = 8
	icmpEchoReply = 0
	icmpEcho6     = 128
	icmpLen       = 8
)

// echo sends one ICMP echo from an address of ours and waits for its answer until ctx ends.
func echo(ctx context.Context, from, to netip.Addr) (time.Duration, error) {
	conn, err := net.DialIP("ip4:1", &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
	if errors.Is(err, os.ErrPermission) {
		return 0, errEchoRights
	}
	if err != nil {
		return 0, fmt.Errorf("echo to %s: %w", to, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question := appendEcho(nil)
	began := time.Now()
	if _, err := conn.Write(question); err != nil {
		return 0, fmt.Errorf("echo to %s: %w", to, err)
	}
	b := make([]byte, 256)
	for {
		n, _, err := conn.ReadFromIP(b) // without the IP header
		if err != nil {
			if ctx.Err() != nil {
				err = errors.New("no answer")
			}
			return 0, fmt.Errorf("echo to %s: %w", to, err)
		}
		if isEchoReply(b[:n], question) {
			return time.Since(began), nil
		}
	}
}

// appendEcho appends an ICMP echo request with a random payload, by which the reply is known.
func appendEcho(b []byte) []byte {
	start := len(b)
	b = append(b, icmpEcho, 0, 0, 0, 0, 0, 0, 1)
	var token [16]byte
	rand.Read(token[:]) // never fails
	b = append(b, token[:]...)
	binary.BigEndian.PutUint16(b[start+2:], checksum(b[start:]))
	return b
}

// checksum is that of RFC 1071 over an even number of bytes.
func checksum(p []byte) uint16 {
	var sum uint32
	for ; len(p) >= 2; p = p[2:] {
		sum += uint32(binary.BigEndian.Uint16(p))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

func isEchoReply(b, question []byte) bool {
	return len(b) == len(question) && b[0] == icmpEchoReply && bytes.Equal(b[icmpLen:], question[icmpLen:])
}
