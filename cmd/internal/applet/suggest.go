package applet

import "strings"

// Suggest returns the name that word was probably meant to be, or "" when none is near: one that begins with it, or
// one within an edit distance of two (one for words of up to three letters).
func Suggest(word string, names []string) string {
	limit := 2
	if len(word) <= 3 {
		limit = 1
	}
	best, least := "", limit+1
	for _, n := range names {
		if len(n) < 2 {
			continue
		}
		if d := distance(strings.ToLower(word), n); d < least {
			best, least = n, d
		}
	}
	if best != "" || len(word) < 2 {
		return best
	}
	for _, n := range names {
		if strings.HasPrefix(n, strings.ToLower(word)) {
			return n
		}
	}
	return ""
}

// distance counts the single-character edits and neighbour swaps between a and b (optimal string alignment).
func distance(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
