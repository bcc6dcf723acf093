package script

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func read(file string) ([]byte, error) { return os.ReadFile(filepath.Join("testdata", file)) }

// execute runs a script that must be understood.
func execute(t *testing.T, name, text string) *Report {
	t.Helper()
	s, err := Parse(read, Source{name, text})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Execute(t.Context(), s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func story(r *Report) string {
	var b strings.Builder
	for _, e := range r.Events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

// TestScripts runs the scripts of testdata: all that they expect is so, and a second run is the same to the byte.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.sim")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := execute(t, file, string(text))
			if !r.OK || len(r.Expect) == 0 {
				t.Errorf("not as expected:\n%s%s", story(r), strings.Join(r.Summary(), "\n"))
			}
			again := execute(t, file, string(text))
			if again.Trace != r.Trace || !reflect.DeepEqual(again.Events, r.Events) || !reflect.DeepEqual(again.Nodes, r.Nodes) {
				t.Errorf("the second run is another one: trace %s, was %s\n%s\nwas\n%s", again.Trace, r.Trace, story(again), story(r))
			}
		})
	}
}

// TestFromManager takes the nodes and links of a manager, and asks what it means when one dies.
func TestFromManager(t *testing.T) {
	t.Parallel()
	r := execute(t, "test", "mesh mesh.json\nat 5s survey\nat 9s kill vps\nat 20s survey\nat 24s expect reach home cccccccc\nat 24s expect apart home phone\nrun 30s")
	got := story(r)
	for _, want := range []string{
		"survey: 6 of 6 pairs answer", "vps is dead", "survey: 1 of 3 pairs answer", "home and phone are apart",
		"home to cccccccc takes 30ms, was 20ms",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if !r.OK {
		t.Error(got)
	}
}

// TestSeeds wants another seed to be another run.
func TestSeeds(t *testing.T) {
	t.Parallel()
	text := "line a 3 jitter 1ms\nat 2s expect reach a0 a2\nrun 3s\n"
	if a, b := execute(t, "test", text+"seed 1"), execute(t, "test", text+"seed 2"); a.Trace == b.Trace {
		t.Error("another seed gives the same trace")
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, want string
		kind       error
	}{
		{"", "no nodes", ErrSyntax},
		{"node a\nfrob b", `t:2: not understood: "frob"`, ErrSyntax},
		{"node a a", `t:1: not understood: there is a node "a" already`, ErrSyntax},
		{"node any", `can't be the name of a node`, ErrSyntax},
		{"node a b\n\nlink a c", `t:3: not understood: there is no node "c"`, ErrSyntax},
		{"node a b\nlink a b delay fast", `"fast" is no time`, ErrSyntax},
		{"node a b\nlink a b loss 101%", `"101%" is no share`, ErrSyntax},
		{"node a b\nlink a b rate 5x", `"5x" is no rate`, ErrSyntax},
		{"node a b\nlink a b colour red", "a wire has delay", ErrSyntax},
		{"node a b\nat 5s explode a", `"explode"; events are`, ErrSyntax},
		{"node a b\nat 5s kill", "which nodes", ErrSyntax},
		{"node a b\nat 5s kill c", `no node "c"`, ErrSyntax},
		{"node a b\nat 5s expect gap a b < 1s", "there is no flow", ErrSyntax},
		{"node a b\nflow a b\nat 5s expect gap a b 1s", "a bound follows", ErrSyntax},
		{"node a b\nat 5s expect path a b round c", "via C", ErrSyntax},
		{"node a b\nevery 5s kill a", "every needs", ErrSyntax},
		{"node a b\nrun 10h\nevery 1ms kill a", "repetitions", ErrLimit},
		{"grid g 100 100", "too many", ErrSyntax},
		{"random r 5000 3\nline l 1", "at most 5000 nodes", ErrLimit},
		{"node a b\nat 5s mark now", `"now" is one word too many`, ErrSyntax},
		{"node a b\nlink a a", "are one node", ErrSyntax},
		{"node a b c\nlink a b\nat 1s cut a c", "no wire between", ErrSyntax},
		{"mesh nothing.json", "no such file", os.ErrNotExist},
		{"mesh relay.sim", "not a list of nodes", ErrTopology},
		{"node a\nrun 48h", "is no time", ErrSyntax},
	} {
		_, err := Parse(read, Source{"t", c.text})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.kind) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// TestExpectationsFail wants each expectation to notice when it is not met.
func TestExpectationsFail(t *testing.T) {
	t.Parallel()
	r := execute(t, "test", `
node a b c r
link a r
link b r
flow a b
at 2s expect apart a b within 1s
at 2s expect reach a c within 1s
at 3s kill r
at 5s expect gap a b < 100ms
at 5s expect lost a b < 1%
at 5s expect path a b direct
at 5s expect idle
run 6s`)
	if len(r.Expect) != 6 || r.OK {
		t.Fatal(story(r))
	}
	for _, v := range r.Expect {
		if v.OK {
			t.Errorf("%s", v)
		}
	}
}

// TestLanguage wants every word of the language's description to be one.
func TestLanguage(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"node a skew 40h", "node a clock 2099", "line a 3 delay 1ms jitter 1ms loss 1% reorder 1% duplicate 1% corrupt 1% rate 10m mtu 1400",
		"star a 3", "random a 9 3", "node a b\nlink a b\nflow a b every 5ms size 999",
		"node a b\nlink a b\nat 1s wire a b delay 9ms\nat 2s cut a\nat 3s mend a\nat 4s cut a b\nat 5s mend a b\nat 5s heal",
		"node a b\nlink a b\nat 1s save a\nat 2s restart a stored down 300ms\nat 4s kill a b\nat 5s start a restored\nat 6s start all lost\nat 7s save all",
		"node a b\nlink a b\nflow a b\nat 1s print flows\nat 1s print nodes\nat 1s print control\nat 1s print path a b\nat 1s say hello you\nat 2s stop a b\nat 2s mark",
	} {
		r := execute(t, "test", text)
		if len(r.Broken) > 0 {
			t.Errorf("%q: %s", text, story(r))
		}
	}
	for _, line := range strings.Split(Language, "\n") {
		if len([]rune(line)) > 125 {
			t.Errorf("%d wide: %s", len([]rune(line)), line)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.sim")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("node a b\nlink a b delay 5ms\nevery 1s until 5s kill any")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(func(string) ([]byte, error) { return []byte("[]"), nil }, Source{"fuzz", text})
		if err == nil && (len(s.order) == 0 || len(s.order) > MaxNodes || s.Run <= 0 || s.Run > MaxRun+5*time.Second) {
			t.Errorf("%d nodes, %v", len(s.order), s.Run)
		}
	})
}
