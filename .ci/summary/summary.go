package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type name struct{ pkg, test string }

// broken is a package that did not end as packages do, and why.
type broken struct{ pkg, cause string }

type summary struct {
	out              io.Writer
	alone            func(n name, flags string, take func(event)) error
	flags            string // of the run that is being read
	output           map[name][]string
	running          map[name]bool
	parents          map[name]bool // tests that have subtests: their subtests are counted, not they
	results          map[name]string
	skipped          map[name]string
	ran              map[name]bool // passed in one of the runs: a skip in another (-short) is none
	broken           []broken
	held             []failure       // in the order they ended
	heldEnd          []event         // of packages that failed by nothing else
	lost             map[string]bool // packages with a test that counts as failed
	passed, failures int
}

// failure is a failed test with its output.
type failure struct {
	name
	elapsed float64
	output  []string
	flags   string // of go test, that it was run with
}

func (f failure) top() string {
	top, _, _ := strings.Cut(f.test, "/")
	return top
}

func newSummary(out io.Writer, alone func(n name, flags string, take func(event)) error) *summary {
	return &summary{
		out: out, alone: alone, output: map[name][]string{}, running: map[name]bool{}, parents: map[name]bool{}, results: map[name]string{},
		skipped: map[name]string{}, ran: map[name]bool{}, lost: map[string]bool{},
	}
}

func (s *summary) read(r io.Reader) error {
	return readEvents(r, s.take, func(line string) { fmt.Fprint(s.out, line) })
}

func (s *summary) take(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "flags": // not of go test: Makefile writes it before a run
		s.flags = e.Output
	case "start":
		for m := range s.results { // of another run of the package
			if m.pkg == e.Package {
				delete(s.results, m)
			}
		}
		delete(s.output, n)
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			s.parents[name{e.Package, e.Test[:i]}] = true
		}
		s.running[n] = true
	case "output":
		s.output[n] = append(s.output[n], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.broken = append(s.broken, broken{e.ImportPath, "it does not compile"})
	case "pass", "fail", "skip":
		s.end(n, e)
	}
}

func (s *summary) end(n name, e event) {
	if n.test == "" {
		s.endPackage(n, e)
		return
	}
	s.results[n] = e.Action
	delete(s.running, n)
	output := s.output[n]
	delete(s.output, n)
	switch {
	case s.parents[n] && e.Action == "pass":
	case e.Action == "pass":
		s.passed++
		s.ran[n] = true
	case e.Action == "skip":
		s.skipped[n] = reason(output)
	default:
		f := failure{n, e.Elapsed, output, s.flags}
		if raced(output) { // no chance, whatever a second run says
			s.failed(f)
			return
		}
		s.held = append(s.held, f)
	}
}

// raced reports whether the race detector spoke.
func raced(output []string) bool {
	for _, line := range output {
		if strings.Contains(line, "DATA RACE") || strings.Contains(line, "race detected during execution") {
			return true
		}
	}
	return false
}

func (s *summary) failed(f failure) {
	s.failures++
	s.lost[f.pkg] = true
	fmt.Fprintf(s.out, "--- FAIL: %s %s (%.2fs)\n%s", f.pkg, f.test, f.elapsed, strings.Join(f.output, ""))
}

func (s *summary) endPackage(n name, e event) {
	failed := false
	for m, r := range s.results {
		failed = failed || m.pkg == n.pkg && r == "fail"
	}
	var cut []string
	for m := range s.running {
		if m.pkg == n.pkg {
			cut = append(cut, m.test)
		}
	}
	if e.Action == "fail" && len(cut) == 0 && failed && !raced(s.output[n]) {
		s.heldEnd = append(s.heldEnd, e)
		return
	}
	s.printPackage(e)
	if e.Action == "fail" {
		s.breakOff(n.pkg, cut)
	}
}

func (s *summary) printPackage(e event) {
	text := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}[e.Action]
	fmt.Fprintf(s.out, "%s\t%s\t%.1fs\n", text, e.Package, e.Elapsed)
}

// breakOff prints all there is of a package that did not build, panicked, ran out of time or failed when its tests had ended.
func (s *summary) breakOff(pkg string, cut []string) {
	slices.Sort(cut)
	var lines []string
	for _, test := range append(cut, "") {
		n := name{pkg, test}
		lines = append(lines, s.output[n]...)
		delete(s.output, n)
		delete(s.running, n)
	}
	text := strings.Join(lines, "")
	fmt.Fprint(s.out, text)
	why := cause(text)
	if len(cut) > 0 {
		why += "; cut off: " + strings.Join(cut, ", ")
	}
	s.broken = append(s.broken, broken{pkg, why})
}

// cause is the line of an output that says why a test program ended as it should not.
func cause(text string) string {
	var last string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, mark := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "*** Test", "signal: ", "exec: WaitDelay", "SIGQUIT"} {
			if strings.HasPrefix(line, mark) {
				return line
			}
		}
		if strings.HasPrefix(line, "exit status ") || last == "" && line != "" && !strings.HasPrefix(line, "FAIL") && !strings.HasPrefix(line, "-test.shuffle") {
			last = line
		}
	}
	if last == "" {
		return "it says nothing; did a test end the program, or leave a process behind?"
	}
	return last
}

// reason is the text of a skip: the last line that is not go test's own.
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "---") && !strings.HasPrefix(l, "===") {
			return l
		}
	}
	return ""
}

// finish prints the skips and the closing line, and reports whether all is well.
func (s *summary) finish(allowed map[string]string, strict bool) bool {
	for n := range s.ran {
		delete(s.skipped, n)
	}
	for _, n := range sortedKeys(s.skipped) {
		why, listed := allowed[n.test]
		fmt.Fprintf(s.out, "skipped: %s %s: %s\n", n.pkg, n.test, s.skipped[n])
		if strict && !listed {
			fmt.Fprintf(s.out, "FAIL: that skip is not listed in .ci/skips.txt\n")
			s.failures++
		} else if listed {
			fmt.Fprintf(s.out, "         allowed: %s\n", why)
		}
	}
	for _, b := range s.broken {
		fmt.Fprintf(s.out, "FAIL: %s did not build or did not end as it should: %s\n", b.pkg, b.cause)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failures+len(s.broken), len(s.skipped))
	return s.failures == 0 && len(s.broken) == 0 && s.passed > 0
}

func sortedKeys(m map[name]string) []name {
	var all []name
	for n := range m {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b name) int { return strings.Compare(a.pkg+a.test, b.pkg+b.test) })
	return all
}
