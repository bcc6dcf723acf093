package forward

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// exchange is a relay between one neighbour and many, which checks what it sends to each.
type exchange struct {
	t      *testing.T
	plane  *Plane
	worker *Worker
	labels []uint32
	links  []*Link
	key    session.HopKey
	next   []uint64       // counter that goes in next, by link
	got    []uint64       // counter that comes out next
	at     map[string]int // link by address
	sizes  map[uint64]int // by counter and link
	sends  int
}

func newExchange(t *testing.T, links int) *exchange {
	x := &exchange{t: t, next: make([]uint64, links), got: make([]uint64, links), at: map[string]int{}, sizes: map[uint64]int{}}
	x.plane = New(Config{Network: key.Open(), Generation: 1}, &upcalls{})
	x.worker = x.plane.NewWorker(x)
	in := x.plane.NewLink(key.Public{})
	in.SetKeys(&x.key, nil, &x.key)
	for i := range links {
		to := x.plane.NewLink(key.Public{})
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 4000)
		to.SetEndpoint(Endpoint{Addr: addr})
		to.SetKeys(&x.key, nil, &x.key)
		to.SetUp(true)
		x.at[addr.String()] = i
		label, err := x.plane.Alloc(1)
		if err != nil {
			t.Fatal(err)
		}
		x.plane.InstallRelay(label, 1, Relay{In: in, Out: to, OutBase: uint32(1000 + i)})
		x.labels, x.links = append(x.labels, label), append(x.links, to)
	}
	return x
}

// append adds a frame for a link to a train, in which all but the last have that size.
func (x *exchange) append(b []byte, link, size int, ecn uint8) []byte {
	f := make([]byte, size)
	copy(f, wire.Header{Type: wire.TypeSealed, TTL: 32, Label: x.labels[link], Counter: x.next[link]}.Append(f[:0]))
	f[3] = ecn
	binary.BigEndian.PutUint64(f[16:], x.key.Tag(f[:16], size))
	for i := wire.HeaderLen; i < size; i++ {
		f[i] = byte(int(x.next[link]) + link + i)
	}
	x.sizes[x.next[link]<<8|uint64(link)] = size
	x.next[link]++
	return append(b, f...)
}

// Send implements Output: frames to a link come in order, whole, and under their own ECN field.
func (x *exchange) Send(to Endpoint, train []byte, seg int, ecn uint8) error {
	x.sends++
	link := x.at[to.Addr.String()]
	if n := segments(len(train), seg); n > maxSegments || len(train) > maxTrain {
		x.t.Fatalf("a train of %d frames and %d bytes", n, len(train))
	}
	for ; len(train) > 0; x.got[link]++ {
		f := train[:min(seg, len(train))]
		train = train[len(f):]
		counter := binary.BigEndian.Uint64(f[8:])
		switch {
		case counter != x.got[link]:
			x.t.Fatalf("link %d: frame %d, want %d", link, counter, x.got[link])
		case len(f) != x.sizes[counter<<8|uint64(link)]:
			x.t.Fatalf("link %d: frame %d has %d bytes, want %d", link, counter, len(f), x.sizes[counter<<8|uint64(link)])
		case binary.BigEndian.Uint32(f[4:]) != uint32(1000+link) || f[2] != 31 || f[3] != ecn:
			x.t.Fatalf("link %d: header %x under ECN field %d", link, f[:16], ecn)
		case x.key.Tag(f[:16], len(f)) != binary.BigEndian.Uint64(f[16:]):
			x.t.Fatalf("link %d: tag", link)
		}
		for i := wire.HeaderLen; i < len(f); i++ {
			if f[i] != byte(int(counter)+link+i) {
				x.t.Fatalf("link %d: byte %d of frame %d", link, i, counter)
			}
		}
	}
	return nil
}

// TestTrainsToMany relays trains whose frames go everywhere, with more links than trains are built at once.
func TestTrainsToMany(t *testing.T) {
	t.Parallel()
	for _, links := range []int{1, 2, maxTrains, maxTrains + 1, 20} {
		t.Run(fmt.Sprint(links), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(uint64(links), 1))
			x := newExchange(t, links)
			for range 300 {
				for range r.IntN(4) {
					seg, frames := 44+r.IntN(1400), 1+r.IntN(maxSegments)
					var b []byte
					link, ecn := r.IntN(links), uint8(0)
					for i := range min(frames, maxTrain/seg) {
						if r.IntN(3) == 0 {
							link = r.IntN(links)
						}
						if r.IntN(20) == 0 {
							ecn = uint8(r.IntN(4))
						}
						size := seg
						if i == frames-1 {
							size = 44 + r.IntN(seg-43)
						}
						b = x.append(b, link, size, ecn)
					}
					x.worker.Receive(time.Second, Endpoint{}, b, seg, 0)
				}
				x.worker.Flush()
				for i := range links {
					if x.got[i] != x.next[i] {
						t.Fatalf("link %d: %d frames of %d", i, x.got[i], x.next[i])
					}
				}
			}
			if c := x.plane.Counters(); len(c.Drops) != 0 {
				t.Errorf("drops: %v", c.Drops)
			}
		})
	}
}

// TestTrainsByTurns has frames for few links come by turns: each link gets one train.
func TestTrainsByTurns(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{false, true} {
		x := newExchange(t, maxTrains)
		var b []byte
		for i := range 40 {
			if b = x.append(b, i%maxTrains, 600, 0); single {
				x.worker.Receive(time.Second, Endpoint{}, b, 600, 0)
				b = nil
			}
		}
		if !single {
			x.worker.Receive(time.Second, Endpoint{}, b, 600, 0)
		}
		x.worker.Flush()
		if x.sends != maxTrains {
			t.Errorf("single %v: %d sends, want %d", single, x.sends, maxTrains)
		}
	}
}
