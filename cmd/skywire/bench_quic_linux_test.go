//go:build bench

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// TestBenchQUIC compares what ends in our nodes with quic-go in programs of its own, in turns over one veth:
//
//   - a stream from node to node with one of quic-go on a net.UDPConn, GSO and all, in two processes;
//   - TCP to TCP through socks client and exit, whose sockets the nodes pump, with the same chain where two more programs
//     end QUIC, over the mesh's TUN (as an app would have to) and on the bare wire (no mesh at all).
func TestBenchQUIC(t *testing.T) {
	b := &bench{world: newWorld(t, "benchq"), seconds: setting("SKYWIRE_BENCH_SECONDS", 2)}
	b.chain("a", "b")
	b.reach("a", "b")
	b.vpnUp("a", "b")
	b.pings("a", b.address("b"))
	b.startSocks("a", "b")
	nodes := []*lab.Process{b.run["a node"], b.run["b node"]}
	ways := []*quicWay{
		{name: "nodes end it", listen: "127.0.0.1:1080", programs: nodes},
		b.inApp("in apps, over the vpn", b.address("b"), "1090", nodes),
		b.inApp("in apps, on the wire", "10.1.0.2", "1091", nil),
	}
	var stream, plain, cost, plainCost []float64
	rounds := setting("SKYWIRE_BENCH_ROUNDS", 5)
	for range rounds {
		before := programTime(t, nodes[:1])
		there, back := b.streamBench("a", "b", fmt.Sprint(b.seconds))
		stream = append(stream, (there+back)/2e3)
		// A node that sends and one that receives cost the same bytes: both ways together are one of each.
		cost = append(cost, (programTime(t, nodes[:1])-before)/((there+back)/2*float64(b.seconds)/8e3))
		mbit, c := b.plainQUIC("a", "b", "10.1.0.2", time.Duration(b.seconds)*time.Second)
		plain, plainCost = append(plain, mbit/1e3), append(plainCost, c)
		for _, y := range ways {
			b.chainRate(y)
		}
	}
	var md strings.Builder
	md.WriteString("| | Gbit/s | processor s a GB | rate of ours to it | time |\n| --- | --- | --- | --- | --- |\n")
	row := func(name string, rate, cost, ours, oursCost []float64) {
		fmt.Fprintf(&md, "| %s | %s | %s | %.2f | %.2f |\n", name, spread(rate), spread(cost), median(ours)/median(rate), median(oursCost)/median(cost))
	}
	row("node to node", stream, cost, stream, cost)
	row("quic-go on net.UDPConn, node to node", plain, plainCost, stream, cost)
	for _, y := range ways {
		row("socks, QUIC: "+y.name, y.rate, y.cost, ways[0].rate, ways[0].cost)
	}
	now := sceneNow(rounds, b.seconds)
	b.keep("streams", fmt.Sprintf("### streams\n\n%s Wanted: 1.5 of both.\n\n%s\n", now, md.String()), struct {
		scene
		Table string `json:"table"`
	}{now, md.String()})
}

// quicWay is a way from TCP to TCP.
type quicWay struct {
	name, listen string
	programs     []*lab.Process // whose time counts
	plain        bool           // no SOCKS: it leads to sinkAddr
	rate, cost   []float64      // Gbit/s; seconds a gigabyte
}

func (b *bench) inApp(name, addr, port string, nodes []*lab.Process) *quicWay {
	b.t.Helper()
	addr = net.JoinHostPort(addr, port)
	exit := b.plainStart("b", "plain-exit"+port, "exit", addr, sinkAddr)
	b.wait("quic-go in b", func(ctx context.Context) error {
		_, err := b.box["b"].Shell(ctx, "ss -Huln sport = :"+port+" | grep -q .")
		return b.alive(exit, err)
	})
	y := &quicWay{name: name, listen: "127.0.0.1:" + port, plain: true}
	entry := b.plainStart("a", "plain-entry"+port, "entry", y.listen, addr)
	b.wait("quic-go in a", func(ctx context.Context) error {
		_, err := b.box["a"].Shell(ctx, "ss -Htln sport = :"+port+" | grep -q .")
		return b.alive(entry, err)
	})
	y.programs = append(append(y.programs, nodes...), exit, entry)
	return y
}

// chainRate sends over one connection and adds what it was.
func (b *bench) chainRate(y *quicWay) {
	b.t.Helper()
	c := b.dial("a", y.listen, 1)[0]
	defer c.Close()
	if !y.plain {
		b.must(connectSOCKS(c, sinkAddr))
	}
	block, sent := make([]byte, 256<<10), 0.0
	before, start := programTime(b.t, y.programs), time.Now()
	for time.Since(start) < time.Duration(b.seconds)*time.Second {
		n, err := c.Write(block)
		b.must(err)
		sent += float64(n)
	}
	y.rate = append(y.rate, sent*8/time.Since(start).Seconds()/1e9)
	y.cost = append(y.cost, (programTime(b.t, y.programs)-before)/sent*1e9)
}
