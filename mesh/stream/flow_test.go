package stream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

// takeFlows registers a service whose flows are joined with one end of a pipe, framed; it gives the other end to f.
func (n *node) takeFlows(t testing.TB, name string, f func(net.Conn)) {
	t.Helper()
	_, err := n.Handle(name, stream.Service{Allow: anyone, Packets: true, Handle: func(ctx context.Context, in *stream.Incoming) {
		if !in.Packets() {
			s, err := in.Accept(nil)
			if err == nil {
				echo(s)
			}
			return
		}
		if _, err := in.Accept(nil); !errors.Is(err, stream.ErrKind) {
			t.Errorf("Accept of a flow: %v, want ErrKind", err)
		}
		fl, err := in.AcceptFlow(append([]byte("re:"), in.Header()...))
		if err != nil {
			return
		}
		here, there := net.Pipe()
		go f(there)
		stream.PumpFlow(ctx, fl, here, true)
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// flowTo opens a flow and returns the program's side of it.
func flowTo(t testing.TB, from, to *node, name string) (prog net.Conn, done chan error) {
	t.Helper()
	fl, err := from.DialFlow(t.Context(), to.key, name, []byte("hi"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(fl.Reply()); got != "re:hi" {
		t.Errorf("reply %q, want re:hi", got)
	}
	here, there := net.Pipe()
	done = make(chan error, 1)
	go func() {
		_, _, err := stream.PumpFlow(context.Background(), fl, here, true)
		done <- err
	}()
	return there, done
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// echoMessages sends every message back.
func echoMessages(c net.Conn) {
	defer c.Close()
	for {
		b, err := readMessage(c)
		if err != nil || writeMessage(c, b) != nil {
			return
		}
	}
}

// TestFlow: packets of every length come back as they were, short ones beside the stream, long ones in it.
func TestFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.takeFlows(t, "dns", echoMessages)
		prog, done := flowTo(t, a, b, "dns")
		for _, n := range []int{0, 1, 2, 512, 1100, 1400, 1500, 9000, 32766, 32767, 32768, stream.MaxFlowPacket} {
			want := bytes.Repeat([]byte{byte(n)}, n)
			if err := writeMessage(prog, want); err != nil {
				t.Fatal(err)
			}
			got, err := readMessage(prog)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: %d came back, %v", n, len(got), err)
			}
		}
		st := a.Stats()
		if st.FlowInStream == 0 || st.FlowInStream >= st.FlowSent || st.FlowDropped != 0 || st.Flows != 1 {
			t.Errorf("stats %+v", st)
		}
		prog.Close()
		if err := <-done; err != nil {
			t.Errorf("flow ended with %v", err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if st := b.Stats(); st.Flows != 0 || st.Streams != 0 {
			t.Errorf("the other end still has %d flows, %d streams", st.Flows, st.Streams)
		}
	})
}

// TestFlowCut: messages that arrive in any pieces are the same messages.
func TestFlowCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.takeFlows(t, "dns", echoMessages)
		prog, _ := flowTo(t, a, b, "dns")
		defer prog.Close()
		var all []byte
		for n := range 40 {
			all = binary.BigEndian.AppendUint16(all, uint16(n))
			all = append(all, bytes.Repeat([]byte{byte(n)}, n)...)
		}
		for step := 1; step < 50; step += 7 {
			go func() {
				for rest := all; len(rest) > 0; rest = rest[min(step, len(rest)):] {
					if _, err := prog.Write(rest[:min(step, len(rest))]); err != nil {
						return
					}
				}
			}()
			seen := map[int]bool{} // what is sent at one instant may change places on this network
			for range 40 {
				got, err := readMessage(prog)
				if err != nil || seen[len(got)] || len(got) >= 40 || !bytes.Equal(got, bytes.Repeat([]byte{byte(len(got))}, len(got))) {
					t.Fatalf("pieces of %d: %x, %v", step, got, err)
				}
				seen[len(got)] = true
			}
		}
	})
}

// TestFlowRefused: who may not, a service without packets, and a name nobody has.
func TestFlowRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "web", echo)
		if _, err := b.Handle("closed", stream.Service{Packets: true, Handle: func(context.Context, *stream.Incoming) {}}); err != nil {
			t.Fatal(err)
		}
		b.takeFlows(t, "dns", echoMessages)
		for name, want := range map[string]*signal.Error{"web": signal.ErrUnsupported, "closed": signal.ErrRefused, "none": signal.ErrNotFound} {
			if _, err := a.DialFlow(t.Context(), b.key, name, nil); !errors.Is(err, want) {
				t.Errorf("flow to %q: %v, want %v", name, err, want)
			}
		}
		s, err := a.Dial(t.Context(), b.key, "dns", nil)
		if err != nil {
			t.Fatalf("a stream to a service of packets: %v", err)
		}
		s.Close()
		synctest.Wait()
		if st := a.Stats(); st.Flows != 0 {
			t.Errorf("%d flows left", st.Flows)
		}
	})
}

// TestFlowOfADeafProgram: a program that does not read loses its oldest packets, and keeps nobody else waiting.
func TestFlowOfADeafProgram(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		deaf := make(chan net.Conn, 1)
		b.takeFlows(t, "deaf", func(c net.Conn) { deaf <- c })
		b.takeFlows(t, "dns", echoMessages)
		prog, _ := flowTo(t, a, b, "deaf")
		defer prog.Close()
		const sent = 2000
		for i := range sent {
			if err := writeMessage(prog, fmt.Appendf(nil, "%4d%1000d", i, 0)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		other, _ := flowTo(t, a, b, "dns")
		defer other.Close()
		if err := writeMessage(other, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got, err := readMessage(other); err != nil || string(got) != "x" {
			t.Fatalf("beside a deaf program: %q, %v", got, err)
		}
		c := <-deaf
		defer c.Close()
		last := 0
		c.SetReadDeadline(time.Now().Add(time.Second))
		n := 0
		for {
			got, err := readMessage(c)
			if err != nil {
				break
			}
			var i int
			fmt.Sscan(string(got[:4]), &i)
			n, last = n+1, max(last, i)
		}
		if last < sent/2 {
			t.Errorf("the newest packet read is %d of %d: old ones were kept", last, sent)
		}
		if st := b.Stats(); st.FlowDropped == 0 || n+int(st.FlowDropped) > sent {
			t.Errorf("%d read, %d dropped of %d", n, st.FlowDropped, sent)
		}
	})
}

// TestFlowLoss: on a path that loses packets, short ones are lost and none comes twice or late behind others.
func TestFlowLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 20 * time.Millisecond, Loss: 0.1})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.takeFlows(t, "dns", echoMessages)
		prog, _ := flowTo(t, a, b, "dns")
		defer prog.Close()
		go func() {
			for i := range 500 {
				if writeMessage(prog, binary.BigEndian.AppendUint32(nil, uint32(i))) != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		seen, last := 0, -1
		prog.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			got, err := readMessage(prog)
			if err != nil {
				break
			}
			if i := int(binary.BigEndian.Uint32(got)); i <= last {
				t.Fatalf("packet %d behind %d", i, last)
			} else {
				last = i
			}
			seen++
		}
		if seen < 300 || seen == 500 {
			t.Errorf("%d of 500 came back over a path that loses 10%% each way", seen)
		}
	})
}

// TestFlowEndsWithItsPeer: when the other node goes, the program hears the end.
func TestFlowEndsWithItsPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		b.takeFlows(t, "dns", echoMessages)
		prog, done := flowTo(t, a, b, "dns")
		b.stop()
		if _, err := readMessage(prog); !errors.Is(err, io.EOF) {
			t.Errorf("read after the peer's end: %v, want EOF", err)
		}
		<-done
		prog.Close()
		m.end(a)
	})
}

func FuzzParsePacket(f *testing.F) {
	f.Add(stream.AppendPacket(nil, 8, []byte("x")))
	f.Add(stream.AppendPacket(nil, 1<<40, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		number, packet, err := stream.ParsePacket(b)
		if err != nil {
			return
		}
		n, again, err := stream.ParsePacket(stream.AppendPacket(nil, number, packet))
		if err != nil || n != number || !bytes.Equal(again, packet) {
			t.Errorf("%d %x: %d %x, %v", number, packet, n, again, err)
		}
	})
}
