// Command summary reads the output of "go test -json" from stdin and prints what a person wants to see of it: a line a
// package, the output of what failed, the skips, and as its last line "N passed, N failed, N skipped".
// It runs no tests. With CI set, a skip that .ci/skips.txt does not list is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type name struct{ pkg, test string }

type summary struct {
	out              io.Writer
	output           map[name][]string
	parents          map[name]bool // tests that have subtests: their subtests are counted, not they
	results          map[name]string
	skipped          map[name]string
	ran              map[name]bool // passed in one of the runs: a skip in another (-short) is none
	broken           []string
	passed, failures int
}

func main() {
	allowed, err := readAllowed(".ci/skips.txt")
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	s := &summary{
		out: os.Stdout, output: map[name][]string{}, parents: map[name]bool{}, results: map[name]string{}, skipped: map[name]string{}, ran: map[name]bool{},
	}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	if !s.finish(allowed, os.Getenv("CI") != "") {
		os.Exit(1)
	}
}

// readAllowed reads lines "TestName: reason".
func readAllowed(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	allowed := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		test, reason, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s: %q gives no reason", path, line)
		}
		allowed[test] = strings.TrimSpace(reason)
	}
	return allowed, nil
}

func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprint(s.out, string(line)) // what go itself says
			} else {
				s.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			s.parents[name{e.Package, e.Test[:i]}] = true
		}
		delete(s.results, n) // a second run of the same test counts anew below
	case "output":
		s.output[n] = append(s.output[n], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.broken = append(s.broken, e.ImportPath)
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
	if s.parents[n] && e.Action == "pass" {
		delete(s.output, n)
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
		s.ran[n] = true
	case "fail":
		s.failures++
		fmt.Fprintf(s.out, "--- FAIL: %s %s (%.2fs)\n%s", n.pkg, n.test, e.Elapsed, strings.Join(s.output[n], ""))
	case "skip":
		s.skipped[n] = reason(s.output[n])
	}
	delete(s.output, n)
}

func (s *summary) endPackage(n name, e event) {
	text := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}[e.Action]
	fmt.Fprintf(s.out, "%s\t%s\t%.1fs\n", text, n.pkg, e.Elapsed)
	if e.Action != "fail" {
		return
	}
	var own bool
	for m, r := range s.results {
		own = own || m.pkg == n.pkg && r == "fail"
	}
	if !own { // it did not build, panicked, or ran out of time
		s.broken = append(s.broken, n.pkg)
		for m, lines := range s.output {
			if m.pkg == n.pkg {
				fmt.Fprint(s.out, strings.Join(lines, ""))
			}
		}
	}
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
	ok := s.failures == 0 && len(s.broken) == 0 && s.passed > 0
	for _, n := range sortedKeys(s.skipped) {
		why, listed := allowed[n.test]
		fmt.Fprintf(s.out, "skipped: %s %s: %s\n", n.pkg, n.test, s.skipped[n])
		if strict && !listed {
			fmt.Fprintf(s.out, "FAIL: that skip is not listed in .ci/skips.txt\n")
			s.failures++
			ok = false
		} else if listed {
			fmt.Fprintf(s.out, "         allowed: %s\n", why)
		}
	}
	for _, p := range s.broken {
		fmt.Fprintf(s.out, "FAIL: %s did not build or did not end as it should\n", p)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failures+len(s.broken), len(s.skipped))
	return ok
}

func sortedKeys(m map[name]string) []name {
	var all []name
	for n := range m {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b name) int { return strings.Compare(a.pkg+a.test, b.pkg+b.test) })
	return all
}
