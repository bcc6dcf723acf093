package node

import (
	"bytes"
	"os"
	"runtime"
	"strconv"

	"skywire/mesh/node/api"
	"skywire/mesh/stream"
)

// What the machine decides, where the settings do not.
const (
	// mostLoops by itself: four cores move what the fastest router has ports for, and each further loop costs buffers and
	// makes the trains of the others shorter.
	mostLoops = 4
	// smallMemory and less is a router with 64 or 128 MB.
	smallMemory = 192 << 20
	// smallSocket is the buffer asked for the sockets of such a box, for all of them together: 20 ms at 100 Mbit/s.
	smallSocket = 256 << 10
	// smallInbox takes the place of inboxSize there.
	smallInbox = 256
)

// machine is what the node makes of the box that it runs on.
type machine struct {
	cpus, loops, processors int
	memory                  uint64
	inbox                   int
	socketBuffer            int // asked for one socket; 0: as mesh/link/udp thinks best
}

// newMachine measures the box and applies the settings. On two cores a second loop moves no more than one does, since the
// kernel's half of the work has the other core, and it costs its buffers.
func newMachine(c *Config) machine {
	m := machine{cpus: runtime.NumCPU(), loops: c.Loops, memory: c.Memory, inbox: inboxSize}
	if m.loops == 0 {
		m.loops = 1
		if m.cpus > 2 {
			m.loops = min(m.cpus, mostLoops)
		}
	}
	if m.memory == 0 {
		m.memory = machineMemory()
	}
	if m.small() {
		m.inbox = smallInbox
		m.socketBuffer = smallSocket / m.loops
	}
	if c.Processors != nil {
		m.processors = c.Processors(m.loops)
	}
	return m
}

func (m *machine) small() bool { return m.memory < smallMemory }

// streams is how many one peer may have at once.
func (m *machine) streams() int {
	if m.small() {
		return stream.MaxStreams
	}
	return stream.ManyStreams
}

// machineMemory returns the memory of the machine in bytes; where it can't be told, plenty.
func machineMemory() uint64 {
	const plenty = 1 << 32
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return plenty
	}
	f := bytes.Fields(b)
	if len(f) < 2 || string(f[0]) != "MemTotal:" {
		return plenty
	}
	kib, err := strconv.ParseUint(string(f[1]), 10, 64)
	if err != nil {
		return plenty
	}
	return kib << 10
}

// machineStatus is what node status shows of it.
func (n *Node) machineStatus() api.Machine {
	m := n.machine
	s := api.Machine{
		CPUs: m.cpus, Processors: m.processors, Memory: m.memory, Small: m.small(), SocketBuffer: m.socketBuffer,
		Goroutines: runtime.NumGoroutine(),
	}
	queues := n.queuesByLoop()
	for i, l := range n.loops {
		st := l.Stats()
		v := api.Loop{
			TUNQueues: queues[i], SocketTrains: st.SocketTrains, SocketBytes: st.SocketBytes, TUNReads: st.TUNReads, TUNBytes: st.TUNBytes,
		}
		for _, s := range n.own(i) {
			v.Ports = append(v.Ports, n.sockets[s].Addr().Port())
		}
		s.Loops = append(s.Loops, v)
	}
	return s
}

// own returns the sockets that a loop receives from: the i-th port of each address.
func (n *Node) own(loop int) []int {
	all := []int{}
	for s := loop; loop < n.ports && s < len(n.sockets); s += n.ports {
		all = append(all, s)
	}
	return all
}
