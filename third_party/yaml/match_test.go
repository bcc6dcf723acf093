package yaml

import (
	"regexp"
	"testing"
)

var (
	yamlStyleFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	base60float    = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`)
)

// TestMatch tries all strings of up to six characters of those that matter.
func TestMatch(t *testing.T) {
	const alphabet = "-.e:_57"
	var try func(s string)
	try = func(s string) {
		if matchFloat(s) != yamlStyleFloat.MatchString(s) {
			t.Errorf("matchFloat(%q)", s)
		}
		if matchBase60Float(s) != base60float.MatchString(s) {
			t.Errorf("matchBase60Float(%q)", s)
		}
		for _, c := range alphabet {
			if len(s) < 6 {
				try(s + string(c))
			}
		}
	}
	try("")
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"1.5e+3", "+.5", "190:20:30.15", "1_0:5:", "0x1p3", "1.\n", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if matchFloat(s) != yamlStyleFloat.MatchString(s) || matchBase60Float(s) != base60float.MatchString(s) {
			t.Errorf("%q", s)
		}
	})
}
