package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "groups.txt")
	text := "# parts\n100 quic: github.com/quic-go\n50 wire: github.com/quic-go/quic-go/internal/wire\n1000 rest: *\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := readGroups(path)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]*parts{
		"github.com/quic-go/quic-go":               {code: 90},
		"github.com/quic-go/quic-go/internal/wire": {code: 40, data: 11},
		"github.com/quic-goose":                    {code: 500},
	}
	var out strings.Builder
	err = judge(&out, all, map[string]int{"github.com/quic-go/quic-go/internal/wire": 41}, sizes)
	if err == nil || !strings.Contains(out.String(), "       51 of        50  wire  OVER: +10 github.com/quic-go/quic-go/internal/wire") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "       90 of       100  quic\n") || !strings.Contains(out.String(), "      500 of      1000  rest\n") {
		t.Errorf("the longest path has not won:\n%s", out.String())
	}
	sizes["github.com/quic-go/quic-go/internal/wire"].data = 10
	if err := judge(&out, all, nil, sizes); err != nil {
		t.Errorf("at its budget: %v", err)
	}
}

func TestBadGroups(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"quic: a", "0 quic: a", "-5 quic: a", "10 quic a", "10 : a", "10 quic:"} {
		path := filepath.Join(t.TempDir(), "groups.txt")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := readGroups(path); err == nil {
			t.Errorf("%q was read as %v", text, all)
		}
	}
}
