package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
	"skywire/mesh/app"
	"skywire/mesh/key"
)

// coldLimit is how long a mesh of 50 may take from the start of the last process until everybody reaches everybody.
const coldLimit = 2 * time.Second

// TestE2EColdStart starts a process for each node, all at once, told one or two neighbours each, on a ring and on a random graph, and measures
// how long it takes until every node knows a path to every other one, and until all of them ping the one farthest away.
func TestE2EColdStart(t *testing.T) {
	n := 16
	if full() {
		n = 50
	}
	for _, c := range []struct {
		name  string
		peers func(i int) []int
	}{
		{"ring", func(i int) []int { return []int{(i + 1) % n} }},
		{"random", randomPeers(n)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "cold"+c.name)
			w.plain("net")
			m := &coldMesh{w: w, all: make([]coldNode, n)}
			m.prepare(c.peers)
			begun := time.Now()
			m.start()
			last := time.Now()
			m.await("every node knows all others", m.knowsAll)
			known := time.Since(last)
			m.await("every node reaches the farthest", m.reachesFarthest)
			reached := time.Since(last)
			t.Logf("%s of %d: started in %v; after the last start all know all in %v, and all reach the farthest in %v; %v of processor time each",
				c.name, n, last.Sub(begun).Round(time.Millisecond), known.Round(time.Millisecond), reached.Round(time.Millisecond),
				m.processor()/time.Duration(n))
			if full() && reached > coldLimit {
				t.Errorf("longer than %v", coldLimit)
			}
		})
	}
}

// randomPeers is a graph that is connected: each node knows an earlier one, and every third one more.
func randomPeers(n int) func(int) []int {
	r := rand.New(rand.NewPCG(50, 2))
	all := make([][]int, n)
	for i := 1; i < n; i++ {
		all[i] = append(all[i], r.IntN(i))
		if i%3 == 0 {
			all[i] = append(all[i], r.IntN(i))
		}
	}
	return func(i int) []int { return all[i] }
}

type coldNode struct {
	dir, addr string
	key       key.Public
	args      []string
	process   *lab.Process
	app       *app.Client
}

type coldMesh struct {
	w   *world
	all []coldNode
}

// prepare makes identities and addresses.
func (m *coldMesh) prepare(peers func(int) []int) {
	m.w.t.Helper()
	batch := ""
	for i := range m.all {
		c := &m.all[i]
		c.dir = filepath.Join(m.w.lab.Dir(), fmt.Sprint("n", i))
		c.addr = fmt.Sprintf("10.9.0.%d:4443", i+1)
		m.w.must(os.MkdirAll(c.dir, 0o755))
		id, _, err := key.LoadOrCreate(filepath.Join(c.dir, "node.key"))
		m.w.must(err)
		c.key = id.Public()
		batch += fmt.Sprintf("ip addr add 10.9.0.%d/32 dev lo\n", i+1)
	}
	m.w.exec("net", "sh", "-c", batch)
	for i := range m.all {
		c := &m.all[i]
		c.args = []string{"node", "run", "--open", "--no-lan", "--no-port-mapping", "--loops", "1", "--memory", "64MB", "--state", c.dir, "--run", c.dir, "--listen", c.addr}
		for _, p := range peers(i) {
			c.args = append(c.args, "--peer", m.all[p].key.String()+"@"+m.all[p].addr)
		}
	}
}

func (m *coldMesh) start() {
	m.w.t.Helper()
	for i := range m.all {
		m.all[i].process = m.w.start("net", fmt.Sprint("n", i), m.all[i].args...)
	}
}

// processor is the processor time that all have taken.
func (m *coldMesh) processor() (sum time.Duration) {
	for i := range m.all {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.all[i].process.PID()))
		m.w.must(err)
		_, rest, _ := strings.Cut(string(b), ") ") // user and system time are the 14th and 15th word
		for _, f := range strings.Fields(rest)[11:13] {
			ticks, err := strconv.Atoi(f)
			m.w.must(err)
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}

// await asks all nodes at the same time until each says nil once.
func (m *coldMesh) await(what string, ok func(ctx context.Context, i int) error) {
	m.w.t.Helper()
	errs := make([]error, len(m.all))
	var wg sync.WaitGroup
	for i := range m.all {
		wg.Go(func() {
			errs[i] = lab.Wait(m.w.t.Context(), 2*patience, fmt.Sprint(what, ": ", i), func(ctx context.Context) error { return ok(ctx, i) })
		})
	}
	wg.Wait()
	m.w.must(errors.Join(errs...))
}

// knowsAll wants a node to know a way to every other one, by the links that records state.
func (m *coldMesh) knowsAll(ctx context.Context, i int) (err error) {
	c := &m.all[i]
	if c.app == nil {
		if c.app, err = app.Dial(ctx, c.dir); err != nil {
			return err
		}
		m.w.t.Cleanup(func() { _ = c.app.Close() })
	}
	var records []struct {
		Key   key.Public
		Links []struct{ Key key.Public }
	}
	if err := c.app.Call(ctx, "node.records", nil, &records); err != nil {
		return err
	}
	links := map[key.Public][]key.Public{}
	for _, r := range records {
		for _, l := range r.Links {
			links[r.Key] = append(links[r.Key], l.Key)
		}
	}
	seen, queue := map[key.Public]bool{c.key: true}, []key.Public{c.key}
	for len(queue) > 0 {
		for _, k := range links[queue[0]] {
			if !seen[k] {
				seen[k] = true
				queue = append(queue, k)
			}
		}
		queue = queue[1:]
	}
	if len(seen) < len(m.all) {
		return fmt.Errorf("ways to %d of %d nodes, %d records", len(seen), len(m.all), len(records))
	}
	return nil
}

func (m *coldMesh) reachesFarthest(ctx context.Context, i int) error {
	far := m.all[(i+len(m.all)/2)%len(m.all)]
	_, err := m.all[i].app.Ping(ctx, far.key)
	return err
}
