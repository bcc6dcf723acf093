package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/meshtest/emulator"
)

// site is a kind of place in the internet. Its router has the interfaces wan and lan; what the kernel can't do is emulated:
// a full cone is a static pair of rules, the restricted cone's list of known addresses is an nftables set, ports in sequence come
// from numgen.
type site struct {
	name   string
	v4, v6 bool
	nat    string // rules of the table inet nat; empty: the node is on the internet itself
	cgnat  bool   // a second, port restricted NAT in front of it
}

// keepOut lets nothing in that nobody inside asked for, IPv4 and IPv6.
const keepOut = `
	chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "lan" accept; %s }
	chain input { type filter hook input priority 0; policy accept; iifname "wan" ct state new meta l4proto { tcp, udp } drop; }`

func sites() []site {
	nat := func(post, pre, forward string) string {
		s := fmt.Sprintf(keepOut, forward)
		if post != "" {
			s += "\n\tchain post { type nat hook postrouting priority 100; oifname \"wan\" meta nfproto ipv4 meta l4proto udp " + post + "; }"
		}
		if pre != "" {
			s += "\n\tchain pre { type nat hook prerouting priority -100; iifname \"wan\" " + pre + " dnat ip to 192.168.1.2:" + meshPort + "; }"
		}
		return s
	}
	var ports []string
	for i := range 256 {
		ports = append(ports, fmt.Sprintf("%d : %d", i, 30000+i))
	}
	plain := nat("masquerade", "", "")
	return []site{
		{name: "none", v4: true, v6: true},
		{name: "full cone", v4: true, nat: nat("masquerade", "udp dport "+meshPort, "udp dport "+meshPort+" accept;")},
		{name: "restricted", v4: true, nat: `set seen { type ipv4_addr; size 1000; flags dynamic,timeout; timeout 60s; }
	chain note { type filter hook forward priority -1; oifname "wan" meta nfproto ipv4 update @seen { ip daddr }; }` +
			nat("masquerade", "ip saddr @seen udp dport "+meshPort, "ip saddr @seen udp dport "+meshPort+" accept;")},
		{name: "port restr.", v4: true, nat: plain},
		{name: "sym. seq.", v4: true, nat: nat("snat ip to WAN : numgen inc mod 256 map { "+strings.Join(ports, ", ")+" }", "", "")},
		{name: "sym. random", v4: true, nat: nat("masquerade random,fully-random", "", "")},
		{name: "CGNAT", v4: true, nat: plain, cgnat: true},
		{name: "IPv6 only", v6: true, nat: nat("", "", "")},
		{name: "dual stack", v4: true, v6: true, nat: plain},
	}
}

// attach wires a box to the middle of the internet by links of its own, number k: 203.0.113.0/24 in pieces of four addresses.
func (w *world) attach(k int, box, dev string, s site) error {
	mid, b := []string{}, []string{}
	if s.v4 {
		mid, b = append(mid, fmt.Sprintf("203.0.113.%d/30", 4*k+1)), append(b, fmt.Sprintf("203.0.113.%d/30", 4*k+2))
	}
	if s.v6 {
		mid, b = append(mid, fmt.Sprintf("2001:db8:0:%x::1/64", k)), append(b, fmt.Sprintf("2001:db8:0:%x::2/64", k))
	}
	for i := range b {
		if strings.Contains(b[i], ":") {
			mid[i], b[i] = mid[i]+" nodad", b[i]+" nodad"
		}
	}
	far := emulator.Profile{Delay: 5 * time.Millisecond} // else a relay would be as near as the peer
	if _, err := w.lab.BadWire(w.end("net", fmt.Sprintf("to%d", k), mid...), w.end(box, dev, b...), far, far, uint64(k)); err != nil {
		return err
	}
	var lines []string
	if s.v4 {
		lines = append(lines, fmt.Sprintf("ip route add default via 203.0.113.%d", 4*k+1))
	}
	if s.v6 {
		lines = append(lines, fmt.Sprintf("ip -6 route add default via 2001:db8:0:%x::1", k))
	}
	_, err := w.box[box].Shell(w.t.Context(), strings.Join(lines, " && "))
	return err
}

// putIn puts the node of box into a site, number k.
func (w *world) putIn(k int, box string, s site) error {
	if s.nat == "" {
		return w.attach(k, box, "eth0", s)
	}
	router := box + "r"
	wan := fmt.Sprintf("203.0.113.%d", 4*k+2)
	var err error
	if s.cgnat {
		wan = fmt.Sprintf("100.64.%d.2", k)
		carrier := box + "c"
		if err = w.attach(k, carrier, "wan", s); err == nil {
			err = w.lab.Wire(w.end(carrier, "lan", fmt.Sprintf("100.64.%d.1/24", k)), w.end(router, "wan", wan+"/24"))
		}
		if err == nil {
			err = w.box[carrier].Forward()
		}
		if err == nil {
			err = w.box[carrier].NFT("table inet nat { " + s.nat + "\n}")
		}
		if err == nil {
			err = w.box[router].IP(fmt.Sprintf("route add default via 100.64.%d.1", k))
		}
	} else {
		err = w.attach(k, router, "wan", s)
	}
	if err != nil {
		return err
	}
	inside, node := []string{}, []string{}
	var routes []string
	if s.v4 {
		inside, node = append(inside, "192.168.1.1/24"), append(node, "192.168.1.2/24")
		routes = append(routes, "ip route add default via 192.168.1.1")
	}
	if s.v6 {
		inside, node = append(inside, fmt.Sprintf("2001:db8:1:%x::1/64 nodad", k)), append(node, fmt.Sprintf("2001:db8:1:%x::2/64 nodad", k))
		routes = append(routes, fmt.Sprintf("ip -6 route add default via 2001:db8:1:%x::1", k))
		if err := w.box["net"].IP(fmt.Sprintf("-6 route add 2001:db8:1:%x::/64 via 2001:db8:0:%x::2", k, k)); err != nil {
			return err
		}
	}
	if err := w.lab.Wire(w.end(router, "lan", inside...), w.end(box, "eth0", node...)); err != nil {
		return err
	}
	if err := w.box[router].Forward(); err != nil {
		return err
	}
	if err := w.box[router].NFT("table inet nat { " + strings.ReplaceAll(s.nat, "WAN", wan) + "\n}"); err != nil {
		return err
	}
	_, err = w.box[box].Shell(w.t.Context(), strings.Join(routes, " && "))
	return err
}

// natGrid is the topology: for each kind of site the nodes aN and bN, and two relays.
type natGrid struct {
	*world
	sites  []site
	client map[string]*app.Client
	keys   map[string]key.Public
}

func newNATGrid(t *testing.T) *natGrid {
	g := &natGrid{world: newWorld(t, "nat"), sites: sites(), client: map[string]*app.Client{}, keys: map[string]key.Public{}}
	nodes, place := []string{"r", "s"}, map[string]site{"r": g.sites[0], "s": g.sites[0]}
	plain := []string{"net"}
	for _, side := range []string{"a", "b"} {
		for i, s := range g.sites {
			name := fmt.Sprintf("%s%d", side, i)
			nodes, place[name] = append(nodes, name), s
			if s.nat != "" {
				plain = append(plain, name+"r")
			}
			if s.cgnat {
				plain = append(plain, name+"c")
			}
		}
	}
	g.plain(plain...)
	g.boxes(nodes...)
	g.must(g.box["net"].Forward())
	inParallel(t, nodes, func(k int, name string) error { return g.putIn(k, name, place[name]) })
	for k, name := range nodes {
		args := []string{"node", "run", "--name", name, "--listen", "udp://[::]:" + meshPort, "--open"}
		for i, relay := range []string{"r", "s"} {
			at := fmt.Sprintf("203.0.113.%d", 4*i+2)
			if !place[name].v4 {
				at = fmt.Sprintf("[2001:db8:0:%x::2]", i)
			}
			if k > i {
				args = append(args, "--peer", g.peer(relay, at))
			}
		}
		g.start(name, "node", args...)
	}
	inParallel(t, nodes, func(_ int, name string) error {
		k, err := key.Parse(g.key[name])
		if err != nil {
			return err
		}
		var c *app.Client
		err = lab.Wait(t.Context(), patience, "node of "+name, func(ctx context.Context) error {
			c, err = app.Dial(ctx, g.box[name].Run())
			return err
		})
		if err != nil {
			return err
		}
		g.mu.Lock()
		g.client[name], g.keys[name] = c, k
		g.mu.Unlock()
		return nil
	})
	for _, c := range g.client {
		t.Cleanup(func() { _ = c.Close() })
	}
	return g
}

// inParallel calls f for each name, a few at a time.
func inParallel(t *testing.T, names []string, f func(i int, name string) error) {
	t.Helper()
	var wg sync.WaitGroup
	room := make(chan struct{}, 4)
	for i, name := range names {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if err := f(i, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// hops returns how long the path in use from one node to another is, 0 if there is none.
func (g *natGrid) hops(ctx context.Context, from, to string) int {
	var paths []struct {
		Peer key.Public   `json:"peer"`
		Hops []key.Public `json:"hops"`
		Role string       `json:"role"`
	}
	if err := g.client[from].Call(ctx, "node.paths", nil, &paths); err != nil {
		return 0
	}
	for _, p := range paths {
		if p.Peer == g.keys[to] && p.Role == "active" {
			return len(p.Hops) - 1
		}
	}
	return 0
}

// outcome is what became of one pair.
type outcome struct {
	direct         time.Duration // 0: it stayed on a relay
	first          time.Duration // until the first answer; 0: none came
	answered, sent int
}

// try pings from one node to another until their path is direct, at most for life.
func (g *natGrid) try(from, to string, life time.Duration) (o outcome) {
	begun := time.Now()
	for time.Since(begun) < life {
		o.sent++
		ctx, cancel := context.WithTimeout(g.t.Context(), life)
		if _, err := g.client[from].Ping(ctx, g.keys[to]); err == nil {
			o.answered++
			if o.first == 0 {
				o.first = time.Since(begun)
			}
		}
		hops := g.hops(ctx, from, to)
		cancel()
		if hops == 1 {
			o.direct = time.Since(begun)
			return o
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-g.t.Context().Done():
		}
	}
	return o
}

// said returns what the log of one node says about another.
func (g *natGrid) said(box, of string) string {
	var s strings.Builder
	for line := range strings.Lines(g.run[box+" node"].Tail(400)) {
		if strings.Contains(line, g.key[of]) || strings.Contains(line, "reachability") {
			fmt.Fprintf(&s, "%s: %s", box, line)
		}
	}
	return s.String()
}

// hopelessNAT are the pairs that no timing brings together: no common family, or a port that nobody can tell beforehand and an
// end that lets in nothing from another one.
func hopelessNAT(a, b site) bool {
	strict := func(s site) bool {
		return s.nat != "" && s.name != "full cone" && s.name != "restricted"
	}
	random := func(s site) bool { return s.name == "sym. random" }
	if !(a.v4 && b.v4 || a.v6 && b.v6) {
		return true
	}
	return !(a.v6 && b.v6) && (random(a) && strict(b) || random(b) && strict(a))
}

// TestE2ENATGrid puts nodes into every kind of place and lets every pair of kinds talk: each must get a direct link where one is
// possible, and be reached over a relay at once in any case. In each round every node has one partner.
func TestE2ENATGrid(t *testing.T) {
	g := newNATGrid(t)
	n := len(g.sites)
	rounds := n/2 + 1 // every pair of kinds once, from one side
	life := 10 * time.Second
	if full() {
		rounds = n
	}
	table := make([][]string, n)
	for i := range table {
		table[i] = make([]string, n)
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				j := (i + round) % n
				a, b := g.sites[i], g.sites[j]
				hopeless := hopelessNAT(a, b)
				wait := life
				if hopeless {
					wait = 2500 * time.Millisecond
				}
				o := g.try(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", j), wait)
				g.mu.Lock()
				defer g.mu.Unlock()
				table[i][j] = "relay"
				if o.direct != 0 {
					table[i][j] = o.direct.Round(10 * time.Millisecond).String()
				}
				switch {
				case o.first == 0:
					t.Errorf("%s to %s: not reached", a.name, b.name)
				case !hopeless && o.direct == 0:
					t.Errorf("%s to %s: no direct link after %v; %d of %d pings answered\n%s%s", a.name, b.name, wait, o.answered, o.sent,
						g.said(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", j)), g.said(fmt.Sprintf("b%d", j), fmt.Sprintf("a%d", i)))
				}
			})
		}
		wg.Wait()
	}
	for i, want := range map[int]string{0: "none", 3: "port restricted cone", 4: "symmetric, sequential (+1)", 5: "symmetric", 6: "port restricted cone", 7: "none"} {
		var s struct {
			NAT struct{ Kind string } `json:"nat"`
		}
		if err := g.client[fmt.Sprintf("a%d", i)].Call(t.Context(), "node.status", nil, &s); err != nil || s.NAT.Kind != want {
			t.Errorf("%s: node status tells %q, %v; want %q", g.sites[i].name, s.NAT.Kind, err, want)
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%-13s", "from, to:")
	for _, s := range g.sites {
		fmt.Fprintf(&text, "%-13s", s.name)
	}
	for i, s := range g.sites {
		fmt.Fprintf(&text, "\n%-13s", s.name)
		for j := range g.sites {
			fmt.Fprintf(&text, "%-13s", table[i][j])
		}
	}
	t.Logf("the path is direct after, by the place of either end:\n%s", text.String())
}
