package stream_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// BenchmarkStream compares one stream over endpoints on real UDP sockets, with trains out and in as the node's loop makes
// them, with one over quic-go on a net.UDPConn. The budget is 1.5 times.
func BenchmarkStream(b *testing.B) {
	b.Run("endpoint", benchEndpoint)
	b.Run("quic-go", benchPlain)
}

const benchBlock = 64 << 10

// udpCarrier is the least that moves trains over a socket.
type udpCarrier struct {
	conn  *net.UDPConn
	to    *net.UDPAddr
	peer  key.Public
	other netip.Addr
}

func newUDPCarrier(b *testing.B) *udpCarrier {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	c.SetReadBuffer(7 << 20)
	c.SetWriteBuffer(7 << 20)
	rc, err := c.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var serr error
	rc.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	if serr != nil {
		b.Skip("no UDP_GRO here:", serr)
	}
	return &udpCarrier{conn: c}
}

func (c *udpCarrier) SendQUIC(_ key.Public, train []byte, seg int) error {
	var oob []byte
	if len(train) > seg {
		oob = make([]byte, unix.CmsgSpace(2))
		binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
		binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_UDP)
		binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(oob[16:], uint16(seg))
	}
	_, _, err := c.conn.WriteMsgUDP(train, oob, c.to)
	return err
}
func (c *udpCarrier) MTU(key.Public) int                      { return 1448 }
func (c *udpCarrier) Ready(context.Context, key.Public) error { return nil }
func (c *udpCarrier) Address(k key.Public) netip.Addr         { return key.Open().Address(k) }
func (c *udpCarrier) Peer(a netip.Addr) (key.Public, bool)    { return c.peer, a == c.other }

// receive is the node's loop, in small.
func (c *udpCarrier) receive(e *stream.Endpoint) {
	buf, oob := make([]byte, 1<<16), make([]byte, 64)
	for {
		n, on, _, _, err := c.conn.ReadMsgUDP(buf, oob)
		if err != nil {
			return
		}
		seg := n
		if on > 0 {
			if h, body, _, err := unix.ParseOneSocketControlMessage(oob[:on]); err == nil && h.Type == unix.UDP_GRO {
				seg = int(binary.NativeEndian.Uint32(body))
			}
		}
		e.Deliver(c.peer, buf[:n], seg)
	}
}

func benchEndpoint(b *testing.B) {
	ends, carriers, stop := udpEnds(b)
	defer stop()
	_, err := ends[1].Handle("sink", stream.Service{Allow: anyone, Handle: func(_ context.Context, in *stream.Incoming) {
		if s, err := in.Accept(nil); err == nil {
			swallow(s)
			s.Write([]byte{1})
			s.CloseWrite()
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := ends[0].Dial(b.Context(), carriers[0].peer, "sink", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	benchSend(b, s, s.CloseWrite)
	b.Logf("%+v", ends[0].Stats())
}

// swallow reads to the end with one large buffer, on either side of the comparison.
func swallow(r io.Reader) {
	buf := make([]byte, benchBlock)
	for {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}

// benchSend writes b.N blocks and waits until the other side has them all.
func benchSend(b *testing.B, s io.ReadWriter, end func() error) {
	block := make([]byte, benchBlock)
	b.SetBytes(benchBlock)
	b.ReportAllocs()
	b.ResetTimer()
	before := processTime(b)
	for range b.N {
		if _, err := s.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	end()
	io.ReadFull(s, block[:1])
	b.StopTimer()
	b.ReportMetric((processTime(b)-before)/float64(b.N)/benchBlock*1e9, "cpu-s/GB")
}

// processTime is what this process has used of the processors, in seconds: it depends less on other load than rates do.
func processTime(b *testing.B) float64 {
	b.Helper()
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		b.Fatal(err)
	}
	return time.Duration(own.Utime.Nano() + own.Stime.Nano()).Seconds()
}

func benchPlain(b *testing.B) {
	private := identity(b, 1).TLS()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, private.Public().(ed25519.PublicKey), private)
	if err != nil {
		b.Fatal(err)
	}
	conf := &tls.Config{
		NextProtos: []string{"bench"}, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}
	var socks [2]*net.UDPConn
	for i := range socks {
		if socks[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			b.Fatal(err)
		}
		defer socks[i].Close()
	}
	t0, t1 := &quic.Transport{Conn: socks[0]}, &quic.Transport{Conn: socks[1]}
	defer t0.Close()
	defer t1.Close()
	ln, err := t1.Listen(conf, nil)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		swallow(s)
		s.Write([]byte{1})
		s.Close()
	}()
	c, err := t0.Dial(context.Background(), socks[1].LocalAddr(), conf, nil)
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.OpenStream()
	if err != nil {
		b.Fatal(err)
	}
	benchSend(b, s, s.Close)
}
