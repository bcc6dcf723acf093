package node

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
)

// nowhere is an Outside in which nothing happens; it counts datagrams.
type nowhere struct{ sent []forward.Endpoint }

func (o *nowhere) Transmit(to forward.Endpoint, _ []byte) { o.sent = append(o.sent, to) }
func (*nowhere) Pinned(forward.Endpoint, key.Public)      {}
func (*nowhere) PeerRestarted(key.Public)                 {}
func (*nowhere) RecordsChanged()                          {}

func (*nowhere) Datagram(time.Duration, forward.Endpoint, []byte)                      {}
func (*nowhere) Control(time.Duration, *forward.Path, []byte)                          {}
func (*nowhere) QUIC(*forward.Session, []byte, int)                                    {}
func (*nowhere) Unrouted(time.Duration, []byte)                                        {}
func (*nowhere) NoLabel(time.Duration, forward.Endpoint, []byte)                       {}
func (*nowhere) TooBig(time.Duration, *forward.Relay, *forward.Link, uint32, int, int) {}
func (*nowhere) Send(forward.Endpoint, []byte, int, uint8) error                       { return nil }

func someKey(t *testing.T, n byte) *key.Private {
	t.Helper()
	for seed := ([32]byte{n, 4}); ; seed[2]++ {
		if k, err := key.FromSeed(seed); err == nil {
			return k
		}
	}
}

func loneCore(t *testing.T, change func(*CoreConfig)) (*Core, *nowhere) {
	t.Helper()
	c := CoreConfig{
		Identity: someKey(t, 1), Network: key.Open(), Boot: 7, Rand: rand.New(rand.NewPCG(1, 2)), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	change(&c)
	out := &nowhere{}
	n, err := NewCore(c, out, out, out)
	if err != nil {
		t.Fatal(err)
	}
	return n, out
}

func TestPublished(t *testing.T) {
	t.Parallel()
	cluster := key.Cluster(someKey(t, 9).Public())
	mapped := []netip.AddrPort{netip.MustParseAddrPort("81.2.69.160:7667"), netip.MustParseAddrPort("10.0.0.7:7667")}
	listen := []string{"udp://home.example:7667", "udp://192.168.1.2:7667", "udp://81.2.69.160:7667", "wss://81.2.69.160:443/x", "udp://[fe80::1%2]:7667", "udp://[2a00::5]:1"}
	for _, c := range []struct {
		name    string
		publish Publish
		open    bool
		network key.NetworkID
		want    []string
	}{
		{"static list", PublishCluster, false, key.Open(), []string{"udp://81.2.69.160:7667", "udp://home.example:7667", "wss://81.2.69.160:443/x", "udp://[2a00::5]:1"}},
		{"cluster", PublishCluster, false, cluster, []string{"udp://81.2.69.160:7667", "udp://home.example:7667", "wss://81.2.69.160:443/x", "udp://[2a00::5]:1"}},
		{"open", PublishCluster, true, key.Open(), nil},
		{"peers", PublishPeers, false, cluster, nil},
		{"none", PublishNone, false, cluster, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, _ := loneCore(t, func(x *CoreConfig) { x.Publish, x.Open, x.Network = c.publish, c.open, c.network })
			n.SetMapped(time.Second, mapped)
			n.SetListen(listen)
			if got := n.record().Addrs; !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	for word, want := range map[string]Publish{"": PublishCluster, "cluster": PublishCluster, "peers": PublishPeers, "none": PublishNone} {
		if got, err := PublishNamed(word); err != nil || got != want {
			t.Errorf("%q: %v %v", word, got, err)
		}
	}
	if _, err := PublishNamed("all"); err == nil {
		t.Error("a word of which nobody knows")
	}
}
