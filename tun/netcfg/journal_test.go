package netcfg

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func line(t testing.TB, e entry) string {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestParseJournal(t *testing.T) {
	t.Parallel()
	owner := line(t, entry{Kind: kindOwner, PID: 7})
	one := line(t, entry{Kind: kindLink, Number: 1, Device: "sw0"})
	two := line(t, entry{Kind: kindRoute, Number: 2, Route: &Route{Prefix: netip.MustParsePrefix("10.0.0.0/8")}})
	gone := line(t, entry{Kind: kindUndone, Undone: 1})
	for _, c := range []struct {
		name, text string
		pid, next  int
		live       []int
	}{
		{"empty", "", 0, 1, nil},
		{"two changes", owner + one + two, 7, 3, []int{1, 2}},
		{"one undone", owner + one + two + gone, 7, 3, []int{2}},
		{"torn last line", owner + one + two[:len(two)/2], 7, 2, []int{1}},
		{"rubbish between", owner + "\x00\x00\n" + one, 7, 2, []int{1}},
		{"a route without its route", owner + `{"kind":"route","number":3}` + "\n", 7, 1, nil},
	} {
		o, live, next := parseJournal([]byte(c.text))
		var got []int
		for _, e := range live {
			got = append(got, e.Number)
		}
		if o.PID != c.pid || next != c.next || len(got) != len(c.live) {
			t.Errorf("%s: pid %d, next %d, live %v; want %d, %d, %v", c.name, o.PID, next, got, c.pid, c.next, c.live)
		}
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(line(f, entry{Kind: kindOwner, PID: 7}) + line(f, entry{Kind: kindRule, Number: 1, Rule: &Rule{Table: 9}})))
	f.Add([]byte(strings.Repeat(line(f, entry{Kind: kindUndone, Undone: 1}), 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, live, next := parseJournal(b)
		for _, e := range live {
			if e.Number >= next || !e.whole() {
				t.Fatalf("%+v is live, next is %d", e, next)
			}
		}
	})
}
