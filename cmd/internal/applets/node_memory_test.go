package applets

import "testing"

func TestParseMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"", 0, true},
		{"64MB", 64 << 20, true},
		{"128 mb", 128 << 20, true},
		{"1GB", 1 << 30, true},
		{"65536KB", 64 << 20, true},
		{"67108864", 64 << 20, true},
		{"64", 0, false},
		{"-64MB", 0, false},
		{"64MiB", 0, false},
		{"99999999999GB", 0, false},
		{"much", 0, false},
	} {
		got, err := parseMemory(tt.text)
		if got != tt.want || err == nil != tt.ok {
			t.Errorf("%q: got %d, %v; want %d", tt.text, got, err, tt.want)
		}
	}
}
