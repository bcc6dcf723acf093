package applets

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runIt := func(words ...string) (int, string, string) {
		var out, talk bytes.Buffer
		e := &applet.Env{
			Args: words, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk,
			Environ: []string{"SKYWIRE_RUN=" + dir, "HOME=" + dir},
		}
		return doctorApplet().Run(t.Context(), e), out.String(), talk.String()
	}
	code, out, talk := runIt("--state", dir+"/not/there/yet", "--json")
	var r doctorReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || !r.OK || talk != "" {
		t.Fatalf("status %d, %v, stderr %q, stdout %q", code, err, talk, out)
	}
	seen := map[string]finding{}
	for _, g := range r.Findings {
		seen[g.Check] = g
		if g.Found == "" || g.OK != (g.Costs == "") || g.OK != (g.Remedy == "") {
			t.Errorf("%+v: found says something; costs and remedy do if and only if it is missing", g)
		}
	}
	if g := seen["node"]; g.OK || !strings.Contains(g.Remedy, "skywire node run") {
		t.Errorf("node without a node: %+v", g)
	}
	code, out, talk = runIt("--state", "/proc/none")
	if code != 1 || !strings.Contains(out, "needed   state") || !strings.Contains(out, "--state") || talk == "" {
		t.Errorf("state that cannot be: status %d, stdout %q, stderr %q", code, out, talk)
	}
	if code, _, _ := runIt("extra"); code != 2 {
		t.Errorf("usage error: status %d", code)
	}
}

func TestHasCapability(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"Name:\tx\nCapEff:\t000001ffffffffff\n": true, "CapEff:\t0000000000001000\n": true,
		"CapEff:\t0000000000000fff\n": false, "CapPrm:\t000001ffffffffff\n": false, "CapEff:\tzz": false, "": false,
	} {
		if got := hasCapability(status, capNetAdmin); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}
