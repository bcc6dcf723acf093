//go:build bench

package main

import "strings"

// direct has neighbours: a and b, and e and f, whose processors are told to have no AES.
func (b *bench) direct() {
	b.t.Helper()
	hops := b.line("10.1", "a", "b")
	b.serve(hops)
	chacha := b.line("10.2", "e", "f")
	b.serve(chacha)
	for _, h := range chacha {
		b.box[h.box].Setenv("GODEBUG", "cpu.aes=off")
	}
	b.add("veth", func(n string) *way { return newWay(n, "a", "b", hops[0].next) })
	b.add("copy", func(n string) *way { return b.bareCopy(n, "10.60.0", "a", "b") }, fetched)
	b.others(hops, true)
	b.add("skywire", func(n string) *way { return b.skywire(n, hops, false) })
	b.add("chacha", func(n string) *way { return b.skywire(n, chacha, false) })
}

// others adds the tunnels of others between two neighbours, or between the ends of a routed line.
func (b *bench) others(hops []hop, all bool) {
	b.t.Helper()
	b.add("wireguard", func(n string) *way { return b.wireguard(n, "wg0", "10.61.0", hops...) }, fetched)
	b.add("nebula", func(n string) *way { return b.nebula(n, "neb0", "10.62.0", hops...) }, fetched)
	if all {
		once := len(b.ways)
		b.add("tinc", func(n string) *way { return b.tinc(n, "tinc0", "10.63.0", hops...) }, "tincd")
		b.add("openvpn", func(n string) *way { return b.openvpn(n, "ovpn0", "10.64.0", hops...) }, "openvpn", "openssl")
		for _, y := range b.ways[once:] {
			y.once = true // far behind: no ratio depends on them
		}
	}
}

// relay has one box between: the kernel routes tunnels that reach over it, and each tunnel relays in its own way:
// wireguard-go as a peer of both that the kernel routes through, nebula by its relay, ours by labels.
func (b *bench) relay() {
	b.t.Helper()
	hops := b.line("10.3", "c", "r", "d")
	b.serve(hops)
	b.between(hops, false)
	if len(b.ways) > 0 && b.ways[len(b.ways)-1].ours {
		b.notes = append(b.notes, b.benchIdle("r"))
		b.startSocks("c", "d")
		b.ways[len(b.ways)-1].socks = true
	}
}

func (b *bench) between(hops []hop, plain bool) {
	b.t.Helper()
	b.add("routed", func(n string) *way { return newWay(n, hops[0].box, hops[len(hops)-1].box, hops[len(hops)-2].next) })
	b.add("wg routed", func(n string) *way { return b.wireguard(n, "wg0", "10.61.0", ends(hops)...) }, fetched)
	b.add("wg relay", func(n string) *way { return b.wireguard(n, "wg1", "10.65.0", hops...) }, fetched)
	if len(hops) == 3 {
		b.add("neb routed", func(n string) *way { return b.nebula(n, "neb0", "10.62.0", ends(hops)...) }, fetched)
		b.add("neb relay", func(n string) *way { return b.nebula(n, "neb1", "10.66.0", hops...) }, fetched)
	}
	b.add("skywire", func(n string) *way { return b.skywire(n, hops, plain) })
}

// relay3 has three boxes between; nebula relays over one at most.
func (b *bench) relay3() {
	b.t.Helper()
	b.brief = true
	hops := b.line("10.4", "c", "r1", "r2", "r3", "d")
	b.serve(hops)
	b.between(hops, false)
}

// cut has wires that carry single packets, joined again where they arrive, like network cards without segmentation:
// skywire there with all it can use itself, and "plain" with no offload at all, one packet a system call.
func (b *bench) cut() {
	b.t.Helper()
	hops, plain := b.line("10.5", "a", "b"), b.line("10.6", "e", "f")
	for _, h := range [][]hop{hops, plain} {
		b.serve(h)
		b.cutWires(h)
	}
	b.add("veth", func(n string) *way { return newWay(n, "a", "b", hops[0].next) })
	b.others(hops, false)
	b.add("skywire", func(n string) *way { return b.skywire(n, hops, false) })
	b.add("plain", func(n string) *way { return b.skywire(n, plain, true) })
}

func (b *bench) cutWires(hops []hop) {
	b.t.Helper()
	for i := range hops[1:] {
		b.noOffload(hops[i].box+" next", hops[i+1].box+" prev")
	}
}

// core asks what a relay costs that has a processor of its own: the ends of both ways share one.
func (b *bench) core() {
	b.t.Helper()
	b.brief = true
	near, far := b.line("10.7", "a", "b"), b.line("10.8", "c", "r", "d")
	b.pin(1, "a", "b", "c", "d")
	b.pin(0, "r")
	b.serve(near)
	b.serve(far)
	b.add("direct", func(n string) *way { return b.skywire(n, near, false) })
	b.add("relayed", func(n string) *way { return b.skywire(n, far, false) })
}

// slowDirect has b as the slow box: what runs there shares one processor, whoever talks to it has the other. Ours runs
// without any offload, and as "offload" with those that do not need the network card, which the others use too.
func (b *bench) slowDirect() {
	b.t.Helper()
	hops := b.line("10.1", "a", "b")
	b.pin(1, "a")
	b.pin(0, "b")
	b.cutWires(hops)
	b.serve(hops)
	b.add("veth", func(n string) *way { return newWay(n, "a", "b", hops[0].next) })
	b.others(hops, true)
	b.add("skywire", func(n string) *way { return b.skywire(n, hops, true) })
	offload := b.line("10.2", "e", "f")
	b.pin(1, "e")
	b.pin(0, "f")
	b.cutWires(offload)
	b.serve(offload)
	b.add("offload", func(n string) *way { return b.skywire(n, offload, false) })
}

// slowRelay has r as the slow box, and q with the offloads that do not need the card.
func (b *bench) slowRelay() {
	b.t.Helper()
	hops := b.line("10.3", "c", "r", "d")
	b.pin(1, "c", "d")
	b.pin(0, "r")
	b.cutWires(hops)
	b.serve(hops)
	b.between(hops, true)
	offload := b.line("10.4", "e", "q", "f")
	b.pin(1, "e", "f")
	b.pin(0, "q")
	b.cutWires(offload)
	b.serve(offload)
	b.add("offload", func(n string) *way { return b.skywire(n, offload, false) })
}

// name of a file for a part or way.
func slug(s string) string { return strings.ReplaceAll(s, " ", "-") }
