package update

import "strings"

// Compare orders versions: below 0 if a is older than b. They look like 1.2.3, v1.2.3, 1.2.3-rc1 (older than 1.2.3) or, from a
// working copy, v1.2.3-4-gabcdef (newer than 1.2.3). What has no number at its front is older than everything that has.
func Compare(a, b string) int {
	an, as, ar := split(a)
	bn, bs, br := split(b)
	if c := natural(an, bn); c != 0 {
		return c
	}
	if as != bs {
		return as - bs
	}
	return natural(ar, br)
}

// split gives the numbers, the stage (-1 before the release, 0 the release, 1 after it) and what else there is.
func split(v string) (numbers string, stage int, rest string) {
	v = strings.TrimSuffix(strings.TrimPrefix(v, "v"), "-dirty")
	v, _, _ = strings.Cut(v, "+")
	if v == "" || v[0] < '0' || v[0] > '9' {
		return "", 0, ""
	}
	end := strings.IndexFunc(v, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		return trimZeros(v), 0, ""
	}
	if v[end] != '-' && v[end] != '~' { // 0a1b2c3: a commit's name, not a number
		return "", 0, ""
	}
	rest = v[end+1:]
	if n, hash, ok := strings.Cut(rest, "-g"); ok && hash != "" && n != "" && strings.Trim(n, "0123456789") == "" {
		return trimZeros(v[:end]), 1, n
	}
	return trimZeros(v[:end]), -1, rest
}

// trimZeros makes 1.2.0 and 1.2 the same.
func trimZeros(numbers string) string {
	numbers = strings.TrimRight(numbers, ".")
	for strings.HasSuffix(numbers, ".0") {
		numbers = strings.TrimRight(strings.TrimSuffix(numbers, "0"), ".")
	}
	return numbers
}

// natural orders text with numbers in it as people do: rc9 before rc10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			m, n := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if len(m) != len(n) {
				return len(m) - len(n)
			}
			if c := strings.Compare(m, n); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
