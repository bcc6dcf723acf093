package stream_test

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// BenchmarkFlow compares packets of 1,000 bytes from program to program in a flow with the same packets, framed, in a stream.
// Both ends are unix sockets, as programs have them; ns/op is that of a packet that arrived.
func BenchmarkFlow(b *testing.B) {
	b.Run("flow", func(b *testing.B) { benchPackets(b, true) })
	b.Run("stream", func(b *testing.B) { benchPackets(b, false) })
}

// programPair is a connection as the node and a program have it.
func programPair(b *testing.B) (node, program net.Conn) {
	b.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		if ends[i], err = fileConn(fd); err != nil {
			b.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "program")
	defer f.Close()
	return net.FileConn(f)
}

func benchPackets(b *testing.B, flow bool) {
	ends, carriers, stop := udpEnds(b)
	defer stop()
	nodeIn, programIn := programPair(b)
	defer programIn.Close()
	_, err := ends[1].Handle("sink", stream.Service{Allow: anyone, Packets: true, Handle: func(ctx context.Context, in *stream.Incoming) {
		if flow {
			if f, err := in.AcceptFlow(nil); err == nil {
				stream.PumpFlow(ctx, f, nodeIn, true)
			}
			return
		}
		if s, err := in.Accept(nil); err == nil {
			stream.Pump(ctx, s, nodeIn)
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	nodeOut, programOut := programPair(b)
	defer programOut.Close()
	var pump sync.WaitGroup
	defer func() {
		programIn.Close()
		programOut.Close()
		pump.Wait()
	}()
	if flow {
		f, err := ends[0].DialFlow(b.Context(), carriers[0].peer, "sink", nil)
		if err != nil {
			b.Fatal(err)
		}
		pump.Go(func() { stream.PumpFlow(context.Background(), f, nodeOut, true) })
	} else {
		s, err := ends[0].Dial(b.Context(), carriers[0].peer, "sink", nil)
		if err != nil {
			b.Fatal(err)
		}
		pump.Go(func() { stream.Pump(context.Background(), s, nodeOut) })
	}
	runPackets(b, programOut, programIn)
	if st := ends[1].Stats(); flow {
		b.Logf("sent %d, received %d, dropped %d at the queue; QUIC packets dropped %d", ends[0].Stats().FlowSent, st.FlowReceived, st.FlowDropped, st.PacketsDropped)
	}
}

// runPackets sends b.N packets and waits until as many have arrived as ever will.
func runPackets(b *testing.B, out, in net.Conn) {
	const size = 1000
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		packet := append([]byte{size >> 8, size & 0xff}, make([]byte, size)...)
		for range b.N {
			if _, err := out.Write(packet); err != nil {
				return
			}
		}
	}()
	arrived, buf, left := 0, make([]byte, 64<<10), 0
	for arrived < b.N {
		in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := in.Read(buf)
		left += n
		arrived, left = arrived+left/(size+2), left%(size+2)
		if err != nil {
			break
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N-arrived)/float64(b.N)*100, "%lost")
	b.ReportMetric(float64(arrived)/b.Elapsed().Seconds(), "packets/s")
}

// udpEnds are two endpoints on real sockets.
func udpEnds(b *testing.B) (ends [2]*stream.Endpoint, carriers [2]*udpCarrier, stop func()) {
	b.Helper()
	ids := [2]*key.Private{identity(b, 1), identity(b, 2)}
	carriers = [2]*udpCarrier{newUDPCarrier(b), newUDPCarrier(b)}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i, c := range carriers {
		c.to = carriers[1-i].conn.LocalAddr().(*net.UDPAddr)
		c.peer = ids[1-i].Public()
		c.other = key.Open().Address(c.peer)
		e, err := stream.New(stream.Config{Identity: ids[i], Network: key.Open(), Carrier: c})
		if err != nil {
			b.Fatal(err)
		}
		ends[i] = e
		work.Go(func() { e.Run(ctx) })
		work.Go(func() { c.receive(e) })
	}
	return ends, carriers, func() {
		cancel()
		carriers[0].conn.Close()
		carriers[1].conn.Close()
		work.Wait()
	}
}
