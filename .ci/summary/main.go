// Command summary reads the output of "go test -json" from stdin and prints what a person wants to see of it: a line a
// package, the output of what failed, the skips, and as its last line "N passed, N failed, N skipped". With CI set, a skip that
// .ci/skips.txt does not list is a failure.
//
// It runs no tests but those: up to three tests that failed, of all packages together, are run once more, alone, with the flags that
// a line {"Action":"flags","Output":"-race -short"} before their run names. One that passes then is called unsteady, with what it said
// when it failed, and counts as passed. That is a defect to mend, not a verdict; what fails twice counts as failed, and so does
// everything when more than three have failed, when a package broke off, and when the race detector spoke.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	allowed, err := readAllowed(".ci/skips.txt")
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	s := newSummary(os.Stdout, runAlone)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	s.repeat()
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

// readEvents hands each event to take, and what is none to other.
func readEvents(r io.Reader, take func(event), other func(line string)) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				other(string(line)) // what go itself says
			} else {
				take(e)
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

// runAlone runs one test of a package again.
func runAlone(n name, flags string, take func(event)) error {
	args := append([]string{"test", "-json", "-count=1", "-timeout", "15m", "-run", "^" + n.test + "$"}, strings.Fields(flags)...)
	c := exec.Command("go", append(args, n.pkg)...)
	if strings.Contains(flags, "-race") {
		c.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	err = readEvents(out, take, func(string) {})
	if werr := c.Wait(); err == nil {
		err = werr
	}
	return err
}
