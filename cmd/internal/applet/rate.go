package applet

import (
	"fmt"
	"strconv"
	"strings"
)

// Rate is bytes a second; 0 means no limit. As text it is in bits, as people buy it: 500kbit, 20Mbit, 1Gbit, or in bytes:
// 2MB. It serves flags (TextVar) and YAML.
type Rate uint64

// UnmarshalText reads a rate; an empty text and 0 mean no limit.
func (r *Rate) UnmarshalText(b []byte) error {
	s := strings.TrimSuffix(string(b), "/s")
	if s == "" || s == "0" {
		*r = 0
		return nil
	}
	units := [...]struct {
		suffix string
		bytes  float64
	}{
		{"kbit", 1e3 / 8},
		{"Mbit", 1e6 / 8},
		{"Gbit", 1e9 / 8},
		{"bit", 1.0 / 8},
		{"kB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
	}
	for _, u := range units {
		n, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(n, 64)
		if err != nil || !(v*u.bytes >= 1 && v*u.bytes <= 1e12) {
			break
		}
		*r = Rate(v*u.bytes + 0.5)
		return nil
	}
	return fmt.Errorf("rate %q: want a number with its unit, such as 20Mbit or 2MB", b)
}

// MarshalText writes a rate in bits a second.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string {
	if r == 0 {
		return "0"
	}
	n, prefixes := float64(r)*8, "kMG"
	prefix := ""
	for ; n >= 1e3 && prefixes != ""; n /= 1e3 {
		prefix, prefixes = prefixes[:1], prefixes[1:]
	}
	return strconv.FormatFloat(n, 'f', -1, 64) + prefix + "bit"
}
