package spectest

import (
	"os"
	"strings"
	"testing"
)

// tape is a test that only notes whether it failed.
type tape struct {
	testing.TB
	failed bool
}

func (p *tape) Helper()               {}
func (p *tape) Error(...any)          { p.failed = true }
func (p *tape) Errorf(string, ...any) { p.failed = true }

func fails(t *testing.T, do func(testing.TB)) bool {
	p := &tape{TB: t}
	do(p)
	return p.failed
}

func TestSpec(t *testing.T) {
	t.Chdir(t.TempDir())
	const head, tail = "# A format\n\nAt most\n7 bytes.\n\n", "\nlast\n"
	if err := os.WriteFile(file, []byte(head+begin+"old\n"+end+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &Vectors{}
	v.Line("long", make([]byte, width/2+1))
	v.Text("text", "abc")
	if !fails(t, func(p testing.TB) { v.Compare(p, false) }) {
		t.Error("other vectors are not told")
	}
	v.Compare(t, true)
	v.Compare(t, false)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	zeros := strings.Repeat("0", width)
	if want := head + begin + "long\n\n    " + zeros + "\n    00\n\ntext\n\n    abc\n\n" + end + tail; string(b) != want {
		t.Errorf("written:\n%s\nwant\n%s", b, want)
	}
	Says(t, "At most 7 bytes.", "text")
	if !fails(t, func(p testing.TB) { Says(p, "At most 8 bytes") }) {
		t.Error("what is not said is not told")
	}
}
