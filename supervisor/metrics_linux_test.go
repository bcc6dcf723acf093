package supervisor

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMetrics: every line has the form of the text format, every family is told once, and names can't break out of labels.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, shells).run()
	s.mustStart(t, "sh", "-c", "sleep 1000")
	text, err := s.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? [0-9.e+-]+)$`)
	told := map[string]bool{}
	for l := range strings.Lines(text) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("%q", l)
		}
		if name, ok := strings.CutPrefix(l, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			if told[name] {
				t.Errorf("%s is told twice", name)
			}
			told[name] = true
		}
	}
	for _, want := range []string{
		`viscript_app_state{app="sh",id="1",state="running"} 1`, `viscript_app_processes{app="sh",id="1"} `,
		`viscript_app_restarts_total{app="sh",id="1"} 0`, "viscript_app_resident_memory_bytes{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	var m metrics
	m.family("x", "gauge", "X.")
	m.sample(1, "app", "a\"} 2\n\\")
	if want := `x{app="a\"} 2\n\\"} 1`; !strings.HasSuffix(m.String(), want+"\n") {
		t.Errorf("%s", m.String())
	}
	if path, err := exec.LookPath("promtool"); err == nil { // the reference, where it is
		c := exec.Command(path, "check", "metrics")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}
