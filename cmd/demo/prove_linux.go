package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"skywire/cmd/internal/lab"
)

// claim runs one proof and remembers what came of it.
func (d *demo) claim(text string, proof func() (figure string, err error)) {
	figure, err := proof()
	d.claims = append(d.claims, claim{text, figure, err})
	if err != nil {
		d.step("FAILED: %s: %v", text, err)
		d.logs()
		return
	}
	d.step("shown: %s: %s", text, figure)
}

// prove shows everything in turn. A claim that fails does not end it; a cancelled ctx does.
func (d *demo) prove(ctx context.Context) error {
	client := d.box["client"]
	for _, c := range []struct {
		text  string
		proof func(context.Context) (string, error)
	}{
		{"client and exit have no connection but the mesh", d.proveApart},
		{"the manager sees all five nodes", d.proveNodes},
		{"the exit is two hops away, over a relay", d.proveTrace},
		{"ping over the vpn", func(ctx context.Context) (string, error) { return d.provePing(ctx, client) }},
		{"a page through the socks client, its name resolved at the exit", d.proveSocks},
		{"a page through the vpn exit", d.proveExit},
		{"a capture on the relay holds no word of it", d.proveCapture},
		{"a download survives the loss of its relay", d.proveFailover},
		{"a message to the exit, and one back", d.proveMessage},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.claim(c.text, func() (string, error) { return c.proof(ctx) })
	}
	return ctx.Err()
}

func (d *demo) proveApart(ctx context.Context) (string, error) {
	// Through an interface of the underlay by name, so that the vpn's routes do not help.
	if _, err := d.box["client"].Exec(ctx, "ping", "-c1", "-W1", "-I", "eth0", "198.51.100.20"); err == nil {
		return "", errors.New("the client reaches the exit without the mesh")
	}
	return "198.51.100.20 does not answer the client's own network", nil
}

type nodeInfo struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Online  bool   `json:"online"`
}

func (d *demo) proveNodes(ctx context.Context) (string, error) {
	manager := d.box["manager"]
	err := lab.Wait(ctx, readyLimit, "five nodes at the manager", func(ctx context.Context) error {
		var nodes []nodeInfo
		if err := manager.SkywireJSON(ctx, &nodes, "manager", "nodes"); err != nil {
			return err
		}
		online := 0
		for _, n := range nodes {
			if n.Online {
				online++
			}
		}
		if online != 5 {
			return fmt.Errorf("%d of %d are online", online, len(nodes))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	took := time.Since(d.began)
	return fmt.Sprintf("%.1f s after the first line", took.Seconds()), d.show(ctx, manager, "manager", "nodes")
}

// show runs a command for its output.
func (d *demo) show(ctx context.Context, b *lab.Box, args ...string) error {
	out, err := b.Skywire(ctx, args...)
	fmt.Fprintf(d.out, "\n  %s$ skywire %s\n", b.Name, strings.Join(args, " "))
	for line := range strings.Lines(out) {
		fmt.Fprint(d.out, "  ", line)
	}
	fmt.Fprintln(d.out)
	return err
}

func (d *demo) proveTrace(ctx context.Context) (string, error) {
	client := d.box["client"]
	err := lab.Wait(ctx, readyLimit, "a path to the exit", func(ctx context.Context) error {
		_, err := client.Skywire(ctx, "node", "ping", "-c", "1", d.key["exit"])
		return err
	})
	if err != nil {
		return "", err
	}
	relay, err := d.carrier(ctx)
	if err != nil {
		return "", err
	}
	if err := d.show(ctx, client, "node", "trace", d.key["exit"]); err != nil {
		return "", err
	}
	return "the packets go through " + relay, nil
}

// carrier names the relay that the trace to the exit shows. In the first second, before the client has heard of all links, the path
// may lead over both.
func (d *demo) carrier(ctx context.Context) (relay string, err error) {
	err = lab.Wait(ctx, readyLimit, "a path over one relay", func(ctx context.Context) error {
		out, err := d.box["client"].Skywire(ctx, "node", "trace", d.key["exit"], "--json")
		if err != nil {
			return err
		}
		one, two := strings.Contains(out, d.key["relay1"]), strings.Contains(out, d.key["relay2"])
		if one == two {
			return fmt.Errorf("the trace names not exactly one relay: %s", out)
		}
		if relay = "relay2"; one {
			relay = "relay1"
		}
		return nil
	})
	return relay, err
}

var pingTimes = regexp.MustCompile(`= ([0-9.]+)/([0-9.]+)/([0-9.]+)/`)

func (d *demo) provePing(ctx context.Context, from *lab.Box) (string, error) {
	var id struct {
		Address string `json:"address"`
	}
	if err := d.box["exit"].SkywireJSON(ctx, &id, "node", "id"); err != nil {
		return "", err
	}
	err := lab.Wait(ctx, readyLimit, "first ping", func(ctx context.Context) error {
		_, err := from.Exec(ctx, "ping", "-6", "-c1", "-W1", id.Address)
		return err
	})
	if err != nil {
		return "", err
	}
	out, err := from.Exec(ctx, "ping", "-6", "-c20", "-i0.05", "-W2", id.Address)
	if err != nil {
		return "", err
	}
	m := pingTimes.FindStringSubmatch(out)
	if m == nil || !strings.Contains(out, " 0% packet loss") {
		return "", fmt.Errorf("unexpected: %s", out)
	}
	return fmt.Sprintf("20 of 20 to %s, %s ms on average", id.Address, m[2]), nil
}

func (d *demo) fetch(ctx context.Context, args ...string) (string, error) {
	var out string
	err := lab.Wait(ctx, readyLimit, "a page", func(ctx context.Context) (err error) {
		out, err = d.box["client"].Exec(ctx, "curl", append([]string{"-sS", "--fail", "-m", "10"}, args...)...)
		return err
	})
	return strings.TrimSpace(out), err
}

func (d *demo) proveSocks(ctx context.Context) (string, error) {
	out, err := d.fetch(ctx, "--socks5-hostname", "127.0.0.1:"+socksPort, "http://"+webName+"/")
	return d.fromExit(out, err)
}

func (d *demo) proveExit(ctx context.Context) (string, error) {
	out, err := d.fetch(ctx, "http://"+webAddress+"/")
	return d.fromExit(out, err)
}

func (d *demo) fromExit(out string, err error) (string, error) {
	if err == nil && out != strings.TrimSpace(fmt.Sprintf(page, "10.50.0.1")) {
		err = fmt.Errorf("unexpected page %q", out)
	}
	return fmt.Sprintf("%q", out), err
}

// proveCapture fetches the page while both relays' wires are recorded.
func (d *demo) proveCapture(ctx context.Context) (string, error) {
	tapes := map[string]*lab.Recording{}
	for _, relay := range []string{"relay1", "relay2"} {
		r, err := d.box[relay].Record()
		if err != nil {
			return "", err
		}
		tapes[relay] = r
	}
	_, err := d.proveExit(ctx)
	if err == nil {
		_, err = d.proveSocks(ctx)
	}
	total := 0
	for relay, r := range tapes {
		for _, packet := range r.Stop() {
			total += len(packet)
			for _, word := range []string{"behind the exit", "HTTP/1.1", webName, d.key["client"], d.key["exit"]} {
				if bytes.Contains(packet, []byte(word)) {
					err = errors.Join(err, fmt.Errorf("a packet at %s shows %q", relay, word))
				}
			}
		}
	}
	if err == nil && total < 2000 {
		err = fmt.Errorf("only %d bytes went through the relays", total)
	}
	return fmt.Sprintf("%d bytes recorded, neither page nor name nor key in clear", total), err
}

// proveFailover kills the relay that carries a download and looks whether all of it arrives.
func (d *demo) proveFailover(ctx context.Context) (string, error) {
	relay, err := d.carrier(ctx)
	if err != nil {
		return "", err
	}
	file := filepath.Join(d.box["client"].Dir, "download")
	curl, err := d.box["client"].Start("curl", "curl", "-sS", "--fail", "-m", "120", "-o", file, "http://"+webAddress+"/download")
	if err != nil {
		return "", err
	}
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	err = lab.Wait(ctx, readyLimit, "a quarter of the download", func(context.Context) error {
		if n := size(); n < downloadSize/4 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	d.step("a quarter of the download is there: killing %s with -9", relay)
	d.daemon[relay+" node"].Kill()
	stall := d.longestStall(ctx, curl, size)
	if code := curl.ExitCode(); code != 0 {
		return "", fmt.Errorf("curl ended with %d at %d bytes: %s", code, size(), curl.Output())
	}
	sum, err := sha256File(file)
	if err != nil {
		return "", err
	}
	if sum != d.web.sum {
		return "", fmt.Errorf("the bytes differ: %s, want %s", sum, d.web.sum)
	}
	other, err := d.carrier(ctx)
	if err != nil {
		return "", err
	}
	if other == relay {
		return "", fmt.Errorf("the trace still shows %s", relay)
	}
	if err := d.show(ctx, d.box["client"], "node", "trace", d.key["exit"]); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MB intact (SHA-256), now over %s; the longest pause was %d ms", downloadSize>>20, other, stall.Milliseconds()), nil
}

// longestStall watches a growing file until the program that writes it ends.
func (d *demo) longestStall(ctx context.Context, p *lab.Process, size func() int64) time.Duration {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, since, longest := size(), time.Now(), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			p.Kill()
			return longest
		case <-p.Done():
			return longest
		case <-tick.C:
		}
		if n := size(); n != last {
			longest = max(longest, time.Since(since))
			last, since = n, time.Now()
		}
	}
}

func sha256File(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), closing(f, err)
}

func (d *demo) failed() bool {
	for _, c := range d.claims {
		if c.err != nil {
			return true
		}
	}
	return false
}

// summary prints every claim with its figure.
func (d *demo) summary() {
	fmt.Fprintf(d.out, "\nWhat was shown in %.0f s:\n", time.Since(d.began).Seconds())
	for _, c := range d.claims {
		if c.err != nil {
			fmt.Fprintf(d.out, "  FAILED  %s: %v\n", c.text, c.err)
		} else {
			fmt.Fprintf(d.out, "  ok      %s: %s\n", c.text, c.figure)
		}
	}
	for _, name := range []string{"relay1 node", "relay2 node", "exit node", "exit vpn", "exit socks", "manager manager"} {
		if p := d.daemon[name]; p != nil {
			if rss := p.RSS(); rss > 0 {
				fmt.Fprintf(d.out, "          %s uses %.1f MB\n", name, float64(rss)/1e6)
			}
		}
	}
}
