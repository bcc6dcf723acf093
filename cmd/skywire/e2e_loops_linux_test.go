package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
)

// machineOf is what node status says of a box's event loops.
type machineOf struct {
	Processors int `json:"gomaxprocs"`
	Loops      []loopOf
}

type loopOf struct {
	Ports       []uint16
	Queues      int    `json:"tun_queues"`
	SocketBytes uint64 `json:"socket_bytes"`
	TUNBytes    uint64 `json:"tun_bytes"`
}

// TestE2ELoops runs nodes with two event loops each, whatever the machine has: flows spread over loops, ports and TUN
// queues; they survive a node that is killed and comes back with another number of loops, and a firewall that lets one
// port through.
func TestE2ELoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "loops")
	w.boxes("a", "r", "b")
	w.must(
		w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("r", "prev", "10.1.0.2/24")),
		w.lab.Wire(w.end("r", "next", "10.1.1.1/24"), w.end("b", "prev", "10.1.1.2/24")))
	w.node("a", "--loops", "2")
	w.node("r", "--loops", "2", "--peer", w.peer("a", "10.1.0.1"))
	w.node("b", "--loops", "2", "--peer", w.peer("r", "10.1.1.1"))
	w.reach("a", "b")
	w.vpnUp("a", "r", "b")
	for _, to := range []string{"r", "b"} { // direct, and over a relay
		w.pings("a", w.address(to))
		w.openPorts("a", "r", 2)
		w.openPorts("b", "r", 2)
		w.spread("a", to, 2, 2)
		for _, args := range [][]string{{"-P4"}, {"-P4", "-R"}} {
			if rate := w.iperf("a", to, w.address(to), args...); rate < 15e6 {
				t.Errorf("a to %s %v: %.1f Mbit/s", to, args, rate/1e6)
			} else {
				t.Logf("a to %s %v: %.0f Mbit/s", to, args, rate/1e6)
			}
		}
	}
	w.checkNoReplay("a", "r", "b")

	// Killed, and back with as many, fewer and more loops than the device has queues.
	pairs := map[int]int{1: 2, 2: 2, 3: 6}
	for _, loops := range []int{2, 1, 3} {
		w.run["a node"].Kill()
		w.node("a", "--loops", fmt.Sprint(loops), "--peer", w.peer("r", "10.1.0.2"))
		w.wait("queues back", func(context.Context) error {
			queues := 0
			for _, l := range w.machine("a").Loops {
				queues += l.Queues
			}
			if queues != 2 {
				return fmt.Errorf("%d queues are read", queues)
			}
			return nil
		})
		w.reach("a", "b")
		w.openPorts("a", "r", pairs[loops])
		w.pings("a", w.address("b"))
		w.spread("a", "b", loops, 2)
		w.checkNoReplay("a", "r", "b")
	}
	w.firewalled()
	w.stopAll("vpn", "node")
}

// firewalled shuts all ports of r and a but their first.
func (w *world) firewalled() {
	w.t.Helper()
	const shut = "add table inet shut; add chain inet shut in { type filter hook input priority 0; }; " +
		"add rule inet shut in udp dport 4444-4450 drop"
	for _, b := range []string{"a", "r"} {
		w.exec(b, "nft", shut)
	}
	// Under traffic: lanes that go nowhere must be found out.
	rate := w.iperf("a", "b", w.address("b"), "-P8")
	w.t.Logf("behind firewalls %.0f Mbit/s", rate/1e6)
	if rate < 1e6 {
		w.t.Errorf("behind firewalls %.1f Mbit/s", rate/1e6)
	}
	w.openPorts("a", "r", 1)
	for range 20 { // every flow finds its way
		w.exec("a", "ping", "-c1", "-W2", w.address("b"))
	}
	if rate := w.iperf("a", "b", w.address("b"), "-P8", "-R"); rate < 15e6 {
		w.t.Errorf("behind firewalls, back: %.1f Mbit/s", rate/1e6)
	}
	for _, b := range []string{"a", "r"} {
		w.exec(b, "nft", "delete table inet shut")
	}
	w.openPorts("a", "r", 6)
}

func (w *world) machine(box string) machineOf {
	w.t.Helper()
	var s struct{ Machine machineOf }
	w.must(w.box[box].SkywireJSON(w.t.Context(), &s, "node", "status"))
	return s.Machine
}

// openPorts waits until two neighbours use so many pairs of ports with each other.
func (w *world) openPorts(one, other string, want int) {
	w.t.Helper()
	for _, d := range [][2]string{{one, other}, {other, one}} {
		w.wait(fmt.Sprintf("%d ports from %s to %s", want, d[0], d[1]), func(ctx context.Context) error {
			var peers []struct {
				Key   string
				Ports int
			}
			if err := w.box[d[0]].SkywireJSON(ctx, &peers, "node", "peers"); err != nil {
				return err
			}
			for _, p := range peers {
				if p.Key == w.key[d[1]] {
					if p.Ports != want {
						return fmt.Errorf("there are %d", p.Ports)
					}
					return nil
				}
			}
			return errors.New("no such link")
		})
	}
}

// spread sends many flows both ways and wants every loop of both ends to have read the mesh and, where it has a queue, the
// device. Where the ends do not have as many queues as loops, flows may settle on some of them.
func (w *world) spread(from, to string, loops, queues int) {
	w.t.Helper()
	before := map[string]machineOf{from: w.machine(from), to: w.machine(to)}
	if n := len(before[from].Loops); n != loops {
		w.t.Fatalf("%s has %d loops, want %d", from, n, loops)
	}
	if n := before[from].Processors; n != loops {
		w.t.Errorf("%s runs on %d processors with %d loops", from, n, loops)
	}
	w.iperf(from, to, w.address(to), "-P16", "-t2")
	w.iperf(from, to, w.address(to), "-P16", "-R", "-t2")
	const least = 20_000 // some data of some flows, more than chatter
	for box, was := range before {
		for i, l := range w.machine(box).Loops {
			mesh, device := l.SocketBytes-was.Loops[i].SocketBytes, l.TUNBytes-was.Loops[i].TUNBytes
			w.t.Logf("loop %d of %s: ports %v, %d queues, %d kB from the mesh, %d kB from the device", i, box, l.Ports, l.Queues, mesh/1000, device/1000)
			if loops == queues && (mesh < least || device < least) {
				w.t.Errorf("loop %d of %s is idle: %d bytes from the mesh, %d from the device", i, box, mesh, device)
			}
		}
	}
}

// checkNoReplay wants no frame dropped because its counter came twice or too late: lanes must not share a counter, nor
// may loops hold frames back.
func (w *world) checkNoReplay(boxes ...string) {
	w.t.Helper()
	for _, b := range boxes {
		drops, _ := json.Marshal(w.status(b)["drops"])
		var d map[string]uint64
		w.must(json.Unmarshal(drops, &d))
		if d["replay"] > 0 || d["bad_seal"] > 0 || d["no_tun"] > 0 {
			w.t.Errorf("%s drops %s", b, drops)
		}
	}
}
