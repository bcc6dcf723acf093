package script

import (
	"fmt"
	"runtime"
	"time"
)

// Report is what came of a script. Encoded as JSON it is what skywire sim --json prints.
type Report struct {
	Seed     uint64       `json:"seed"`
	Ran      float64      `json:"ran_s"` // virtual
	OK       bool         `json:"ok"`    // every expectation was met, no invariant broken
	Events   []Event      `json:"events"`
	Expect   []Verdict    `json:"expect"`
	Broken   []string     `json:"broken"` // invariants
	Flows    []FlowReport `json:"flows"`
	Nodes    []NodeReport `json:"nodes"`
	Control  uint64       `json:"control_bytes"` // of all nodes: handshakes and LINK frames
	Sent     uint64       `json:"datagrams"`
	Trace    string       `json:"trace"` // same script and seed, same trace
	Took     float64      `json:"took_s"`
	HeapByte uint64       `json:"heap_bytes"` // of the whole simulation
}

// Event is a line of the story.
type Event struct {
	At   float64 `json:"at_s"`
	Text string  `json:"text"`
}

// String is the event as people read it.
func (e Event) String() string { return fmt.Sprintf("%9.3f  %s", e.At, e.Text) }

// Verdict is what became of an expectation.
type Verdict struct {
	Line   int     `json:"line"`
	At     float64 `json:"at_s"`
	Expect string  `json:"expect"`
	OK     bool    `json:"ok"`
	Got    string  `json:"got"`
}

// String is the verdict as people read it.
func (v Verdict) String() string {
	return fmt.Sprintf("%s: expected %s: %s", map[bool]string{true: "ok", false: "NOT SO"}[v.OK], v.Expect, v.Got)
}

// FlowReport is what became of a flow.
type FlowReport struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Sent    uint32  `json:"sent"`
	Arrived uint32  `json:"arrived"`
	Gap     float64 `json:"gap_ms"`   // longest silence since the last mark
	Delay   float64 `json:"delay_ms"` // of the last packet
	Path    string  `json:"path"`
}

// String is the flow as people read it.
func (f FlowReport) String() string {
	return fmt.Sprintf("flow %s to %s: %d of %d packets arrived, longest silence %.0f ms, delay %.1f ms, over %s",
		f.From, f.To, f.Arrived, f.Sent, f.Gap, f.Delay, f.Path)
}

// NodeReport is what a node holds at the end.
type NodeReport struct {
	Name     string `json:"name"`
	Up       bool   `json:"up"`
	Links    int    `json:"links"`
	Records  int    `json:"records"`
	Sessions int    `json:"sessions"`
	Rules    int    `json:"rules"` // relayed paths
	Control  uint64 `json:"control_bytes"`
	Sent     uint64 `json:"sent_bytes"`
}

// String is the node as people read it.
func (r NodeReport) String() string {
	if !r.Up {
		return fmt.Sprintf("node %s: dead; sent %s", r.Name, number(r.Sent))
	}
	return fmt.Sprintf("node %s: %d links, %d records, %d sessions, %d paths through it, sent %s, of it control %s",
		r.Name, r.Links, r.Records, r.Sessions, r.Rules, number(r.Sent), number(r.Control))
}

func (x *world) flowReports() (all []FlowReport) {
	for _, f := range x.net.Flows() {
		all = append(all, FlowReport{
			From: f.From.Name, To: f.To.Name, Sent: f.Sent, Arrived: f.Arrived, Gap: float64(f.Silence().Microseconds()) / 1000,
			Delay: float64(f.Delay.Microseconds()) / 1000, Path: x.path(f.From.Name, f.To.Name),
		})
	}
	return all
}

func (x *world) nodeReports() (all []NodeReport) {
	for _, nd := range x.net.Nodes() {
		r := NodeReport{Name: nd.Name, Up: nd.Core != nil, Control: nd.SentControl, Sent: nd.SentBytes}
		if nd.Core != nil {
			t := nd.Core.Audit(x.net.Now()).Tables
			r.Links, r.Records, r.Sessions, r.Rules = t["links"], t["records"], t["sessions"], t["relays"]
		}
		all = append(all, r)
	}
	return all
}

// control tells what the mesh costs.
func (x *world) control() string {
	var total, most uint64
	worst := ""
	nodes := x.net.Nodes()
	for _, nd := range nodes {
		total += nd.SentControl
		if nd.SentControl >= most {
			most, worst = nd.SentControl, nd.Name
		}
	}
	return fmt.Sprintf("control so far: %s, %s a node, most by %s: %s", number(total), number(total/uint64(len(nodes))), worst, number(most))
}

func (x *world) finish(took time.Duration) {
	r := x.report
	r.Ran, r.Took = x.now().Seconds(), took.Seconds()
	r.Flows, r.Nodes, r.Sent = x.flowReports(), x.nodeReports(), x.net.Datagrams
	for _, nd := range r.Nodes {
		r.Control += nd.Control
	}
	r.Trace = fmt.Sprintf("%016x", x.net.Trace())
	r.OK = len(r.Broken) == 0
	for _, v := range r.Expect {
		r.OK = r.OK && v.OK
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.HeapByte = m.HeapAlloc
}

// Summary tells the end of the story in a few lines.
func (r *Report) Summary() (lines []string) {
	for _, f := range r.Flows {
		lines = append(lines, f.String())
	}
	lines = append(lines, fmt.Sprintf("%d nodes, %.0f s on virtual time in %.1f s, %d datagrams, control %s a node, memory %s a node; trace %s",
		len(r.Nodes), r.Ran, r.Took, r.Sent, number(r.Control/uint64(max(1, len(r.Nodes)))), number(r.HeapByte/uint64(max(1, len(r.Nodes)))), r.Trace))
	missed := 0
	for _, v := range r.Expect {
		if !v.OK {
			missed++
		}
	}
	return append(lines, fmt.Sprintf("%d of %d expectations met, %d invariants broken", len(r.Expect)-missed, len(r.Expect), len(r.Broken)))
}
