package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// group is a library, or a part of ours, with the bytes that it may have.
type group struct {
	name     string
	limit    int
	prefixes []string
}

// readGroups reads lines of a limit, a name, a colon, and the packages: a path counts with all below it. Of several groups
// the one with the longest path has a package, and "*" has the rest. Blanks in what is no package are written as "_".
func readGroups(path string) (all []group, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		head, tail, ok := strings.Cut(line, ":")
		number, name, _ := strings.Cut(strings.TrimSpace(head), " ")
		limit, err := strconv.Atoi(number)
		if !ok || err != nil || limit <= 0 || strings.TrimSpace(name) == "" || len(strings.Fields(tail)) == 0 {
			return nil, fmt.Errorf("%s:%d: want LIMIT NAME: PACKAGE…", path, n)
		}
		all = append(all, group{strings.TrimSpace(name), limit, strings.Fields(tail)})
	}
	return all, s.Err()
}

// find gives the index of the group of a package; -1: none has it.
func find(all []group, name string) int {
	name = strings.ReplaceAll(name, " ", "_")
	best, length := -1, -1
	for i, g := range all {
		for _, p := range g.prefixes {
			n := len(p)
			if p == "*" {
				n = 0
			} else if name != p && !strings.HasPrefix(name, p+"/") {
				continue
			}
			if n > length {
				best, length = i, n
			}
		}
	}
	return best
}

// judge prints every group beside its limit, and below one that is over it the packages that have grown since old.
func judge(w io.Writer, all []group, old map[string]int, sizes map[string]*parts) error {
	sums, grown := make([]int, len(all)), make([][]string, len(all))
	for _, r := range sorted(sizes) {
		i := find(all, r.name)
		if i < 0 {
			return fmt.Errorf("%s is in no group", r.name)
		}
		sums[i] += r.total()
		if d := r.total() - old[r.name]; d > 0 {
			grown[i] = append(grown[i], fmt.Sprintf("%+d %s", d, r.name))
		}
	}
	over := 0
	for i, g := range all {
		mark := ""
		if sums[i] > g.limit {
			over++
			mark = "  OVER: " + strings.Join(grown[i], ", ")
		}
		fmt.Fprintf(w, "%9d of %9d  %s%s\n", sums[i], g.limit, g.name, mark)
	}
	if over > 0 {
		return fmt.Errorf("%d parts are over their budgets", over)
	}
	return nil
}
