package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"skywire/cmd/internal/lab"
)

// TestE2ECongestion has the underlay before and behind a relay mark congestion, and wants inner TCP to hear of it.
func TestE2ECongestion(t *testing.T) {
	for _, marking := range []string{"r1", "b"} {
		t.Run("at "+marking, func(t *testing.T) {
			w := newWorld(t, "ecn")
			w.chain("a", "r1", "b")
			w.reach("a", "b")
			w.vpnUp("a", "b")
			w.must(w.box["a"].Sysctl("net.ipv4.tcp_ecn=1"), w.box["b"].Sysctl("net.ipv4.tcp_ecn=1"))
			addr := w.address("b")
			w.pings("a", addr)
			tape := w.record("b")
			if rate := w.iperf("a", "b", addr, "-t", "1"); rate < 1e6 {
				t.Errorf("unmarked: %.1f Mbit/s", rate/1e6)
			}
			if got := outer(t, tape); got[2] == 0 || got[3] != 0 {
				t.Errorf("outer ECN fields without congestion: %v of Not-ECT, ECT(1), ECT(0), CE", got)
			}
			if got := w.counter("a", "TcpExtTCPDeliveredCE"); got != 0 {
				t.Errorf("%d segments came with CE, and nobody marks", got)
			}
			// One of a few datagrams is marked, before any socket sees it.
			w.must(w.box[marking].NFT("table ip congested {\n chain hop {\n  type filter hook prerouting priority -200\n" +
				"  udp dport " + meshPort + " ip ecn ect0 numgen random mod 20 0 ip ecn set ce\n }\n}\n"))
			tape = w.record("b")
			if rate := w.iperf("a", "b", addr, "-t", "2"); rate < 1e6 {
				t.Errorf("marked: %.1f Mbit/s", rate/1e6)
			}
			got := outer(t, tape)
			ce, echoed := w.counter("b", "Ip6InCEPkts"), w.counter("a", "TcpExtTCPDeliveredCE")
			t.Logf("outer fields at b %v; b's stack saw %d packets with CE, a heard of %d", got, ce, echoed)
			if ce == 0 || echoed == 0 {
				t.Error("congestion does not reach inner TCP")
			}
			if marking == "r1" && got[3] == 0 {
				t.Error("the relay does not show congestion outside")
			}
			if drops := fmt.Sprint(w.status("b")["drops"]); strings.Contains(drops, "ecn") {
				t.Errorf("drops at b: %s", drops)
			}
		})
	}
}

// outer counts the mesh datagrams of a recording by their ECN field, and wants every one whole and never to be cut.
func outer(t *testing.T, r *lab.Recording) (fields [4]int) {
	t.Helper()
	for _, p := range r.Stop() {
		if len(p) < 28 || p[0]>>4 != 4 || p[9] != 17 {
			continue
		}
		if flags := binary.BigEndian.Uint16(p[6:]); flags != 1<<14 {
			t.Fatalf("flags and fragment offset %#x, want DF alone", flags)
		}
		if port := strconv.Itoa(int(binary.BigEndian.Uint16(p[22:]))); port == meshPort {
			fields[p[1]&3]++
		}
	}
	return fields
}

// counter reads a number of the kernel's in a box.
func (w *world) counter(box, name string) (n int) {
	w.t.Helper()
	out := w.exec(box, "nstat", "-asz", name)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, _ = strconv.Atoi(f[1])
			return n
		}
	}
	w.t.Fatalf("no counter %s: %s", name, out)
	return 0
}

// TestE2EShrink makes a wire smaller under TCP, at the source and behind a relay. Nothing is cut, and TCP goes on.
func TestE2EShrink(t *testing.T) {
	for _, at := range []string{"first", "second"} {
		t.Run(at+" wire", func(t *testing.T) {
			w := newWorld(t, "shrink")
			w.chain("a", "r1", "b")
			w.reach("a", "b")
			w.vpnUp("a", "b")
			addr := w.address("b")
			w.pings("a", addr)
			ends := [][2]string{{"a", "next"}, {"r1", "prev"}}
			if at == "second" {
				ends = [][2]string{{"r1", "next"}, {"b", "prev"}}
			}
			for _, mtu := range []string{"1400", "900"} {
				tape := w.record("b")
				gap, rate := w.longestGap("a", "b", addr, mtu, func() {
					for _, e := range ends {
						w.must(w.box[e[0]].IP("link set dev " + e[1] + " mtu " + mtu))
					}
				})
				fields := outer(t, tape)
				t.Logf("to %s bytes: nothing for %.1f s, %.0f Mbit/s, outer fields %v", mtu, gap, rate/1e6, fields)
				if gap > 1 {
					t.Errorf("TCP stood still for %.1f s when the wire went to %s bytes", gap, mtu)
				}
			}
		})
	}
}

// TestE2EOffload takes the offloads of the wires away under TCP, checksums first: what is refused is sent again in another
// way, and not lost.
func TestE2EOffload(t *testing.T) {
	if _, err := exec.LookPath("ethtool"); err != nil {
		t.Skip(err)
	}
	w := newWorld(t, "offload")
	w.chain("a", "r1", "b")
	w.reach("a", "b")
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	tape := w.record("b")
	gap, rate := w.longestGap("a", "b", addr, "offload", func() {
		for _, e := range [][2]string{{"a", "next"}, {"r1", "prev"}, {"r1", "next"}, {"b", "prev"}} {
			w.exec(e[0], "ethtool", "-K", e[1], "tx", "off")
			w.exec(e[0], "ethtool", "-K", e[1], "gso", "off", "tso", "off", "gro", "off", "tx-udp-segmentation", "off")
		}
	})
	t.Logf("nothing for %.1f s, %.0f Mbit/s, outer fields %v", gap, rate/1e6, outer(t, tape))
	if gap > 1 {
		t.Errorf("TCP stood still for %.1f s", gap)
	}
	for _, box := range []string{"a", "r1", "b"} {
		if drops := fmt.Sprint(w.status(box)["drops"]); strings.Contains(drops, "send") {
			t.Errorf("drops at %s: %s", box, drops)
		}
	}
}

// longestGap runs TCP for four seconds, changes something after one, and returns the longest time in seconds that nothing
// arrived, and the bits a second. Its programs' logs have the name in theirs.
func (w *world) longestGap(from, to, addr, name string, change func()) (gap, rate float64) {
	w.t.Helper()
	const step = 0.1
	server, err := w.box[to].Start("iperf3 server "+name, "iperf3", "-s", "-1", "-J", "-i", fmt.Sprint(step))
	w.must(err)
	defer server.Kill()
	w.wait("iperf3 server", func(ctx context.Context) error {
		_, err := w.box[to].Shell(ctx, "ss -Htln sport = :5201 | grep -q .")
		return err
	})
	client, err := w.box[from].Start("iperf3 client "+name, "iperf3", "-c", addr, "-t", "4", "-i", "0.5", "--forceflush")
	w.must(err)
	defer client.Kill()
	w.wait("a second of TCP", func(context.Context) error {
		if strings.Count(client.Output(), "bits/sec") < 2 {
			return fmt.Errorf("not yet: %s", client.Tail(3))
		}
		return nil
	})
	change()
	<-client.Done()
	<-server.Done()
	var r struct {
		Intervals []struct {
			Sum struct {
				Seconds, Bytes float64
			}
		}
	}
	if err := json.Unmarshal([]byte(server.Output()), &r); err != nil || len(r.Intervals) < 30 {
		w.t.Fatalf("iperf3: %v, %d intervals: %s", err, len(r.Intervals), client.Output())
	}
	var empty, bytes, seconds float64
	for _, i := range r.Intervals {
		empty += i.Sum.Seconds
		if i.Sum.Bytes > 0 {
			empty = 0
		}
		gap = max(gap, empty)
		bytes, seconds = bytes+i.Sum.Bytes, seconds+i.Sum.Seconds
	}
	return gap, bytes * 8 / seconds
}
