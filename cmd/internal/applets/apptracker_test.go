//go:build !mini

package applets

import (
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/mesh/tracker"
)

func TestApptrackerWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"--help"}, applet.OK, "apptracker 127.0.0.1:20000"},
		{[]string{"run", "--help"}, applet.OK, "only signed records"},
		{[]string{"list", "x"}, applet.BadUsage, "unexpected argument"},
		{[]string{"lst"}, applet.BadUsage, `did you mean "list"?`},
		{[]string{"run", "nowhere"}, applet.BadUsage, "no HOST:PORT"},
		{[]string{"list", "--addr", "x"}, applet.BadUsage, "no HOST:PORT"},
		{[]string{"list"}, applet.NotRunning, "--addr HOST:PORT"},
		{[]string{"list", "--addr", "127.0.0.1:1"}, applet.NotRunning, "start one with: skywire apptracker run 127.0.0.1:1"},
	} {
		code, stdout, stderr := runApplet(t.Context(), apptrackerApplet(), testBox(t), c.words...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("apptracker %v: %d, %q %q; want %d, %q", c.words, code, stdout, stderr, c.code, c.want)
		}
	}
}

// TestApptracker2017 runs it by the words of 2017, with no node, and asks it over TCP.
func TestApptracker2017(t *testing.T) {
	t.Parallel()
	box := testBox(t)
	talk := startApplet(t, apptrackerApplet(), box, "127.0.0.1:0")
	listening := regexp.MustCompile(`addr=(\S+)`)
	var addr string
	eventually(t, "the address in the log", func() bool {
		if m := listening.FindStringSubmatch(talk.String()); m != nil {
			addr = m[1]
		}
		return addr != ""
	})
	c, err := tracker.DialTCP(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	raw := route.Sign(&route.Record{Number: 1, Services: []route.Service{{Name: "exit", Type: "vpn"}, {Name: "p", Type: "socks"}}}, p, key.Open())
	if err := c.PutRecord(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runApplet(t.Context(), apptrackerApplet(), box, "list", "--addr", addr, "--type", "vpn", "--json")
	var all []tracker.Entry
	if err := json.Unmarshal([]byte(stdout), &all); code != 0 || err != nil || len(all) != 1 || all[0].Key != p.Public() || all[0].Name != "exit" {
		t.Errorf("list: %d, %s %s", code, stdout, stderr)
	}
	if code, stdout, _ := runApplet(t.Context(), apptrackerApplet(), box, "list", "--addr", addr); code != 0 || strings.Count(stdout, p.Public().String()) != 2 {
		t.Errorf("list: %d, %s", code, stdout)
	}
}

func TestApptrackerPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, stderr := runApplet(t.Context(), apptrackerApplet(), testBox(t), "run", l.Addr().String())
	if code != applet.Failed || !strings.Contains(stderr, "another apptracker") {
		t.Errorf("%d, %s", code, stderr)
	}
}
