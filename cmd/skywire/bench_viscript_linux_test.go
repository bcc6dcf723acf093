//go:build bench

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBenchViscript puts viscript beside the supervisors that Debian has, each with the same apps, measure by measure so that
// the rivals meet the same load: make bench-viscript, supervisor/BENCH.md. It measures programs, so it needs no root.
func TestBenchViscript(t *testing.T) {
	path, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	b := &superBench{t: t, rivals: superRivals(path)}
	b.rivals = slices.DeleteFunc(b.rivals, func(r superRival) bool {
		_, err := exec.LookPath(r.needs)
		if err != nil {
			t.Logf("%s is not here: %v", r.name, err)
		}
		return err != nil
	})
	only := os.Getenv("SKYWIRE_BENCH_PARTS")
	b.skip = func(what string) bool { return only != "" && !strings.Contains(","+only+",", ","+what+",") }
	b.measure("start 100", "100 apps started, ms", b.start)
	b.measure("stop 100", "100 stubborn trees stopped, ms", b.stop)
	b.measure("rss", "", b.idle)
	b.measure("restart", "from a crash to the next start, ms (median of 5)", b.restart)
	b.measure("kill", "", b.kill)
	b.measure("flood", "", b.flood)
	b.write()
}

// superBench collects figures.
type superBench struct {
	t      testing.TB
	rivals []superRival
	skip   func(what string) bool
	order  []string                     // of the rows
	rows   map[string]map[string]string // row → rival → figure
}

// measure runs one measurement with every rival in turn.
func (b *superBench) measure(what, row string, run func(r *superRun) map[string]string) {
	if b.skip(what) {
		return
	}
	for _, r := range b.rivals {
		s := b.begin(r, what)
		for name, figure := range run(s) {
			if name == "" {
				name = row
			}
			b.note(name, r.name, figure)
		}
		s.end()
	}
}

func (b *superBench) note(row, rival, figure string) {
	if b.rows == nil {
		b.rows = map[string]map[string]string{}
	}
	if b.rows[row] == nil {
		b.rows[row] = map[string]string{}
		b.order = append(b.order, row)
	}
	b.rows[row][rival] = figure
	b.t.Logf("%-60s %-12s %s", row, rival, figure)
}

// start counts from the start of the supervisor to the first word of the last of 100 apps.
func (b *superBench) start(s *superRun) map[string]string {
	s.apps(100, quietApp)
	at := time.Now()
	s.run()
	s.up(100)
	return map[string]string{"": fmt.Sprintf("%d", time.Since(at).Milliseconds())}
}

// stop asks for the end of 100 trees of three processes that ignore TERM, a second before they are killed.
func (b *superBench) stop(s *superRun) map[string]string {
	s.apps(100, stubbornApp)
	s.run()
	s.up(100)
	at := time.Now()
	out, err := exec.Command("sh", "-c", s.rival.stop(s)).CombinedOutput()
	took := time.Since(at)
	left := len(s.marked(func(comm string) bool { return comm == "sleep" }))
	if err != nil && left == 0 {
		b.t.Logf("%s: stop: %v: %.300s", s.rival.name, err, out)
	}
	return map[string]string{
		"": fmt.Sprintf("%d", took.Milliseconds()), "of their 300 processes left after that": fmt.Sprintf("%d", left),
	}
}

// idle is what the supervisor itself takes while its apps sleep.
func (b *superBench) idle(s *superRun) map[string]string {
	figures := map[string]string{}
	for _, n := range []int{8, 100} {
		s.apps(n, quietApp)
		s.run()
		s.up(n)
		s.settle()
		const wall = 10 * time.Second
		before := s.cpu()
		s.pause(wall)
		after := s.cpu()
		rss, pss, count := s.memory()
		figures[fmt.Sprintf("RSS idle with %d apps, MB (PSS; processes of the supervisor)", n)] = fmt.Sprintf("%.1f (%.1f; %d)", rss, pss, count)
		figures[fmt.Sprintf("CPU idle with %d apps, %% of one", n)] = fmt.Sprintf("%.3f", 100*(after-before).Seconds()/wall.Seconds())
		s.end()
	}
	return figures
}

// restart kills an app that has run for a while.
func (b *superBench) restart(s *superRun) map[string]string {
	s.apps(8, quietApp)
	s.run()
	s.up(8)
	s.settle()
	var all []time.Duration
	for i := range 5 {
		all = append(all, s.crash(i))
	}
	slices.Sort(all)
	return map[string]string{"": fmt.Sprintf("%.1f", float64(all[2].Microseconds())/1000)}
}

// kill ends the supervisor as a bug would, and starts it again.
func (b *superBench) kill(s *superRun) map[string]string {
	const n = 8
	s.apps(n, quietApp)
	s.run()
	s.up(n)
	s.settle()
	before := s.pids(n)
	s.killSupervisor()
	s.settle()
	alive := 0
	for _, pid := range before {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			alive++
		}
	}
	s.run()
	s.settle()
	s.settle()
	twice := len(s.marked(func(comm string) bool { return comm == "sleep" }))
	same := 0
	for i, pid := range s.pids(n) {
		if pid == before[i] {
			same++
		}
	}
	return map[string]string{
		"apps of 8 alive after kill -9 of the supervisor":     fmt.Sprintf("%d", alive),
		"app processes after its next start (8 are right)":    fmt.Sprintf("%d", twice),
		"apps of 8 that go on under it with their old number": fmt.Sprintf("%d", same),
	}
}

// flood has an app print 50 MB/s for some seconds.
func (b *superBench) flood(s *superRun) map[string]string {
	s.floods()
	s.run()
	s.up(1)
	before := s.cpu()
	at := time.Now()
	var most float64
	for !s.flooded() {
		rss, _, _ := s.memory()
		most = max(most, rss)
		s.pause(100 * time.Millisecond)
	}
	spent := s.cpu() - before
	return map[string]string{
		"log flood of 50 MB/s: what the app got rid of, MB/s": s.floodRate(),
		"CPU of the supervisor meanwhile, % of one":           fmt.Sprintf("%.0f", 100*spent.Seconds()/time.Since(at).Seconds()),
		"RSS of the supervisor meanwhile at most, MB":         fmt.Sprintf("%.1f", most),
		"log on disk after it, MB":                            fmt.Sprintf("%.1f", s.onDisk()),
	}
}

// write prints the table and leaves it, and the same as JSON, in the folder of results.
func (b *superBench) write() {
	dir := os.Getenv("SKYWIRE_BENCH_RESULTS")
	if dir == "" {
		dir = "../../build/bench/results"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	now := sceneNow(1, 10)
	var md strings.Builder
	fmt.Fprintf(&md, "%s, %d × %s, Linux %s, load at the end %s.\n\n| |", now.Time.Format("2006-01-02 15:04"), now.CPUs, now.CPU, now.Kernel, now.Load)
	for _, r := range b.rivals {
		fmt.Fprintf(&md, " %s |", r.name+" "+r.version())
	}
	md.WriteString("\n|---|" + strings.Repeat("---|", len(b.rivals)) + "\n")
	for _, row := range b.order {
		fmt.Fprintf(&md, "| %s |", row)
		for _, r := range b.rivals {
			figure := b.rows[row][r.name]
			if figure == "" {
				figure = "n/a"
			}
			fmt.Fprintf(&md, " %s |", figure)
		}
		md.WriteString("\n")
	}
	fmt.Println(md.String())
	text, err := json.MarshalIndent(struct {
		scene
		Rows map[string]map[string]string `json:"rows"`
	}{now, b.rows}, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "viscript.json"), append(text, '\n'), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "viscript.md"), []byte(md.String()), 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
