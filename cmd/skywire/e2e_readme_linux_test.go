package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var readmeLine = regexp.MustCompile(`(?m)^ +(home|away|both)\$ sudo skywire (.*?)(?: +#.*)?$`)

// TestE2EReadme does what README.md says for two real boxes, with its own lines: home reachable by name, away behind NAT.
func TestE2EReadme(t *testing.T) {
	w := newWorld(t, "readme")
	w.boxes("home", "away")
	w.plain("router", "web")
	w.must(
		w.lab.Wire(w.end("away", "eth0", "192.168.7.2/24"), w.end("router", "lan", "192.168.7.1/24")),
		w.lab.Wire(w.end("router", "wan", "203.0.113.2/24"), w.end("home", "eth0", "203.0.113.1/24")),
		w.lab.Wire(w.end("home", "eth1", "11.7.7.1/24"), w.end("web", "eth0", "11.7.7.7/24")),
		w.box["away"].IP("route add default via 192.168.7.1"), w.box["router"].NAT("wan"),
		w.box["home"].IP("route add default via 11.7.7.7"),
		w.box["away"].WriteEtc("hosts", "203.0.113.1 home.example\n"))
	w.serve("web", "11.7.7.7:8080")
	lines := readmeLine.FindAllStringSubmatch(read(t, "../../README.md"), -1)
	if len(lines) != 13 {
		t.Fatalf("%d lines of commands in README.md, not 13: look at this test", len(lines))
	}
	link := ""
	for _, l := range lines {
		box, args := l[1], strings.Fields(strings.NewReplacer("HOME_KEY", w.key["home"], "AWAY_KEY", w.key["away"], "'skywire:contact?…'", link).Replace(l[2]))
		if args[0] == "messenger" {
			link = w.readmeMessenger(box, args, link)
			continue
		}
		switch args[1] {
		case "run", "server", "client":
			p := w.start(box, args[0]+" "+args[1], args...)
			if args[1] == "run" {
				w.wait("node of "+box, func(ctx context.Context) error {
					_, err := w.box[box].Skywire(ctx, "node", "status")
					return w.alive(p, err)
				})
			}
		default:
			w.wait(strings.Join(args, " "), func(ctx context.Context) error {
				_, err := w.box[box].Skywire(ctx, args...)
				return err
			})
		}
	}
	w.pings("away", w.address("home"))
	w.checkWeb("away", "http://11.7.7.7:8080/", "11.7.7.1")
	w.wait("a page through the proxy", func(ctx context.Context) error {
		_, err := w.box["away"].Exec(ctx, "curl", "-sS", "-f", "-m", "5", "--proxy", "socks5h://127.0.0.1:1080", "http://11.7.7.7:8080/")
		return err
	})
}

// readmeMessenger does a line about messages; the link that one prints is for the next.
func (w *world) readmeMessenger(box string, args []string, link string) string {
	w.t.Helper()
	switch args[1] {
	case "run": // on both
		for _, box := range []string{"home", "away"} {
			w.messenger(box)
		}
	case "tail":
		w.wait("what away said", func(ctx context.Context) error {
			out, err := w.box[box].Skywire(ctx, "messenger", "tail") // without -f, to end
			if err == nil && !strings.Contains(out, "the pump runs again") {
				err = fmt.Errorf("got %q", out)
			}
			return err
		})
	default:
		out := strings.TrimSpace(w.skywire(box, args...))
		if args[2] == "invite" {
			return out
		}
	}
	return link
}
