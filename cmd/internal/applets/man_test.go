//go:build web || !(mips || mipsle || mini)

package applets

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
	"skywire/supervisor/config"
)

const someDay = "2026-01-31"

// TestManIsHelp: every verb and every flag that --help shows is on the applet's page.
func TestManIsHelp(t *testing.T) {
	t.Parallel()
	pages := map[string]string{}
	for _, p := range manPages(t.Context(), someDay, All(), Tools()) {
		pages[p.name] = string(p.text)
	}
	m := &manual{day: someDay, all: All(), tools: Tools()}
	for _, a := range slices.Concat(All(), Tools()) {
		text := pages[pageOf(a)]
		if !strings.Contains(text, ".SH \"NAME\"\n"+escape(pageOf(a))+` \- `) {
			t.Errorf("%s has no page, or one without a name", a.Name)
		}
		own := m.ask(t.Context(), a)
		verbs := m.verbs(t.Context(), a, own)
		for _, v := range verbs {
			if !strings.Contains(text, `.SS "`+escape(strings.Join(v.words, " "))+`"`) {
				t.Errorf("%s lacks the verb %v", a.Name, v.words)
			}
			own.flags = slices.Concat(own.flags, v.help.flags)
		}
		for _, f := range own.flags {
			name, _, _ := strings.Cut(f.head, " ")
			if !strings.Contains(text, "\n.TP\n"+bold(name)) {
				t.Errorf("%s lacks the flag %s", a.Name, name)
			}
		}
		if len(own.flags) == 0 && len(verbs) > 3 {
			t.Errorf("%s: no flag was found in its help", a.Name)
		}
	}
	if text := pages["config.yaml"]; !strings.Contains(text, bold("settings")) && !strings.Contains(text, bold("web.listen")+": "+italic(config.DefaultWeb)) {
		t.Error("config.yaml lacks web.listen")
	}
}

// TestManLint has the readers of manual pages look for what they do not like.
func TestManLint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out, errs bytes.Buffer
	e := &applet.Env{Args: []string{dir}, Environ: []string{"SOURCE_DATE_EPOCH=1769817600"}, Stdout: &out, Stderr: &errs}
	if code := man(t.Context(), e); code != applet.OK {
		t.Fatalf("status %d: %s", code, errs.String())
	}
	files := strings.Fields(out.String())
	if len(files) != len(All())+len(Tools())+2 {
		t.Errorf("%d pages", len(files))
	}
	found := false
	for program, args := range map[string][]string{"mandoc": {"-Tlint", "-Wwarning"}, "groff": {"-ww", "-man", "-K", "utf8", "-Tutf8", "-z"}} {
		path, err := exec.LookPath(program)
		if err != nil {
			continue
		}
		found = true
		for _, f := range files {
			if said, err := exec.Command(path, slices.Concat(args, []string{f})...).CombinedOutput(); err != nil || len(said) > 0 {
				t.Errorf("%s %s: %v\n%s", program, filepath.Base(f), err, said)
			}
		}
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(text, []byte(".TH ")) || !bytes.Contains(text[:120], []byte(" 2026-01-31 ")) {
			t.Errorf("%s begins with %.60q", f, text)
		}
	}
	if !found {
		t.Skip("needs mandoc or groff")
	}
}

func TestParseHelp(t *testing.T) {
	t.Parallel()
	h := parseHelp("usage: x y [-n N]\n\nDoes it.\nWell.\n\n    x y 3     # like this\n\nflags:\n  -n N        how often\n  --long-one  text: with  two blanks\n\ncommon flags:\n  --json  one document\n")
	if h.usage != "x y [-n N]" || h.about != "Does it.\nWell.\n\n    x y 3     # like this" || len(h.flags) != 2 ||
		h.flags[1] != (helpItem{"--long-one", "text: with  two blanks"}) || len(h.common) != 1 {
		t.Errorf("%+v", h)
	}
	h = parseHelp("x: does things\n\n  x a, b ARG  one\n  x c         two\n\nx VERB --help says more.\n")
	if h.usage != "" || h.about != "" || len(h.verbs) != 2 || h.verbs[0].head != "x a, b ARG" {
		t.Errorf("%+v", h)
	}
}

func TestRoff(t *testing.T) {
	t.Parallel()
	r := &roff{}
	r.paragraph(".dots 'quotes' \\ and -dashes … \"x\"")
	r.prose("  .laid   out")
	r.usage("x [--a B]… KEY@ADDR|none")
	want := ".PP\n\\&.dots \\(aqquotes\\(aq \\e and \\-dashes \\[u2026] \\(dqx\\(dq\n.PP\n.nf\n  .laid   out\n.fi\n.PP\n" +
		"\\fBx\\fR [\\fB\\-\\-a\\fR \\fIB\\fR]\\[u2026] \\fIKEY@ADDR\\fR|\\fBnone\\fR\n"
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
