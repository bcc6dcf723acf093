package signal

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSpec: the document names every error with its number.
func TestSpec(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	all := []*Error{
		ErrParse, ErrInvalid, ErrUnknownMethod, ErrUsage, ErrInternal, ErrNotFound, ErrRefused, ErrUnreachable, ErrTimeout,
		ErrBusy, ErrUnsupported, ErrNotRunning,
	}
	for _, e := range all {
		if row := fmt.Sprintf("| %d | %s |", e.Code, e.Name); !strings.Contains(string(b), row) {
			t.Errorf("SPEC.md lacks %q", row)
		}
	}
	for _, limit := range []string{
		fmt.Sprintf("at most %d,%03d,%03d bytes", MaxLine/1000000, MaxLine/1000%1000, MaxLine%1000), fmt.Sprintf("at most %d: they ride", MaxFiles),
		fmt.Sprintf("at once (%d), or more than %d MiB", MaxRequests, MaxHeld>>20), fmt.Sprintf("not finished within %.0f s", LineTimeout.Seconds()),
		fmt.Sprintf("takes nothing for %.0f s", WriteTimeout.Seconds()), fmt.Sprintf("%d connections at once", MaxConns),
	} {
		if !strings.Contains(string(b), limit) {
			t.Errorf("SPEC.md lacks %q", limit)
		}
	}
	if n := strings.Count(string(b), "\n| -3"); n != len(all) {
		t.Errorf("SPEC.md has %d errors, the code %d", n, len(all))
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for e, want := range map[*Error]int{ErrUsage: 2, ErrNotRunning: 3, ErrUnreachable: 3, ErrNotFound: 4, ErrRefused: 5, ErrInternal: 1, ErrBusy: 1} {
		if got := Errorf(e, "x").ExitCode(); got != want {
			t.Errorf("%s: %d, want %d", e.Name, got, want)
		}
	}
}
