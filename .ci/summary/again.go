package main

import (
	"fmt"
	"strings"
)

// maxAgain is how many tests are run a second time: more that fail are no chance.
const maxAgain = 3

// repeat runs held tests alone, once, and decides about them.
func (s *summary) repeat() {
	var tops []name
	of := map[name][]failure{}
	for _, f := range s.held {
		top := name{f.pkg, f.top()}
		if of[top] == nil {
			tops = append(tops, top)
		}
		of[top] = append(of[top], f)
	}
	lost := len(tops) > maxAgain || len(s.broken)+s.failures > 0
	for _, top := range tops {
		if lost || twice(of[top]) || !s.passesAlone(top, of[top][0].flags) {
			for _, f := range of[top] {
				s.failed(f)
			}
			continue
		}
		fmt.Fprintf(s.out, "unsteady: %s %s failed once, passed alone; what it said then:\n", top.pkg, top.test)
		for _, f := range of[top] {
			for line := range strings.Lines(strings.Join(f.output, "")) {
				fmt.Fprint(s.out, "| ", strings.ReplaceAll(line, "FAIL", "fail")) // for readers that look for that word
			}
		}
	}
	for _, e := range s.heldEnd {
		if !s.lost[e.Package] {
			e.Action = "pass"
		}
		s.printPackage(e)
	}
}

// twice reports whether a test has failed in two runs already, as with the race detector and without it.
func twice(list []failure) bool {
	for _, f := range list {
		if f.flags != list[0].flags {
			return true
		}
	}
	return false
}

// passesAlone runs a test again, as it was run before, and counts what passes of it that had not. What it says when it fails is printed.
func (s *summary) passesAlone(top name, flags string) bool {
	again, ended := newSummary(s.out, nil), false
	err := s.alone(top, flags, func(e event) {
		if e.Test != "" {
			again.take(e)
		}
		ended = ended || e.Test == "" && e.Action == "pass"
	})
	if err == nil && ended && len(again.held) == 0 && len(again.ran)+len(again.skipped) > 0 {
		for n := range again.ran {
			if !s.ran[n] {
				s.passed++
				s.ran[n] = true
			}
		}
		return true
	}
	fmt.Fprintf(s.out, "again, alone: %s %s: %v\n", top.pkg, top.test, err)
	for _, f := range again.held {
		fmt.Fprint(s.out, strings.Join(f.output, ""))
	}
	return false
}
