// Package spectest holds the SPEC.md of a package against its code, for the tests of packages that have one: vectors, which the code
// makes and the document shows, and sentences, which say the code's numbers.
//
// It knows no format and no package of the mesh. The SPEC.md is that of the folder that the test runs in; vectors stand in it
// between the lines <!-- vectors --> and <!-- end -->.
package spectest

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	file  = "SPEC.md"
	begin = "<!-- vectors -->\n"
	end   = "<!-- end -->"
	width = 112 // letters of a vector on a line
)

// Vectors are what stands between the two lines.
type Vectors struct{ b strings.Builder }

// Line adds bytes under a name.
func (v *Vectors) Line(name string, raw []byte) { v.Text(name, hex.EncodeToString(raw)) }

// Text adds letters under a name.
func (v *Vectors) Text(name, s string) {
	fmt.Fprintf(&v.b, "%s\n\n", name)
	for s != "" {
		n := min(len(s), width)
		fmt.Fprintf(&v.b, "    %s\n", s[:n])
		s = s[n:]
	}
	v.b.WriteByte('\n')
}

// Compare wants the SPEC.md to show these vectors; with update it is written so that it does.
func (v *Vectors) Compare(t testing.TB, update bool) {
	t.Helper()
	spec, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(spec), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("SPEC.md has no place for the vectors")
	}
	want := head + begin + v.b.String() + end + tail
	switch {
	case want == string(spec):
	case !update:
		t.Error("SPEC.md has other vectors than the code; a change of them is a change of the protocol (-update writes them)")
	default:
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Says wants the SPEC.md to say each of these, wherever its lines break.
func Says(t testing.TB, wants ...string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	spec := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range wants {
		if !strings.Contains(spec, want) {
			t.Errorf("SPEC.md does not say %q", want)
		}
	}
}
