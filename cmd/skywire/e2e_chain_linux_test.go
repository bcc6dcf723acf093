package main

import (
	"bytes"
	"context"
	"encoding/base32"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// TestE2EChain runs A-R1-B and A-R1-R2-R3-B: what a person does over a vpn works, in both directions, and no relay sees
// any of it.
func TestE2EChain(t *testing.T) {
	t.Parallel()
	for _, relays := range [][]string{{"r1"}, {"r1", "r2", "r3"}} {
		t.Run(fmt.Sprintf("%d relays", len(relays)), func(t *testing.T) {
			w := newWorld(t, "chain")
			w.chain(append(append([]string{"a"}, relays...), "b")...)
			w.reach("a", "b")
			w.exitBehind("b")
			w.start("a", "vpn", "vpn", "client", "--server", w.key["b"], "--exit")
			addr := w.address("b")
			w.pings("a", addr)
			w.pings("b", w.address("a"))
			tape := w.record(relays[0])
			w.checkWeb("a", "http://["+addr+"]:8080/", w.address("a"))
			w.checkWeb("a", "http://10.50.0.2:8080/", "10.50.0.1")
			w.checkTape(tape)
			for _, c := range []struct {
				name string
				args []string
			}{{"TCP a to b", nil}, {"TCP b to a", []string{"-R"}}, {"UDP", []string{"-u", "-b", "20M"}}} {
				rate := w.iperf("a", "b", addr, c.args...)
				t.Logf("%s over %d relays: %.0f Mbit/s", c.name, len(relays), rate/1e6)
				if rate < 15e6 {
					t.Errorf("%s: %.1f Mbit/s", c.name, rate/1e6)
				}
			}
			w.checkRelayed(relays)
			w.checkHops("a", "b", relays)
		})
	}
}

const secret = "what no relay may read"

// exitBehind gives a box a LAN with a web server and makes it a vpn exit that box a may use.
func (w *world) exitBehind(box string) {
	w.t.Helper()
	w.plain("web")
	w.must(w.lab.Wire(w.end(box, "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")))
	w.start(box, "vpn", "vpn", "server", "--exit", "--allow-private", "--allow", w.key["a"])
	w.serve(box, "[::]:8080")
	w.serve("web", "10.50.0.2:8080")
}

// serve answers HTTP in a box with the secret and the address of who asks.
func (w *world) serve(box, addr string) {
	w.t.Helper()
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%s, %s\n", secret, r.RemoteAddr)
	})}
	l := w.listen(box, addr)
	go func() { _ = s.Serve(l) }() // ends when the listener is closed
	w.t.Cleanup(func() { _ = s.Close() })
}

func (w *world) checkWeb(from, url, want string) {
	w.t.Helper()
	w.wait("curl "+url, func(ctx context.Context) error {
		out, err := w.box[from].Exec(ctx, "curl", "-sS", "-g", "-m", "5", url)
		if err == nil && (!strings.Contains(out, secret) || !strings.Contains(out, want)) {
			err = fmt.Errorf("got %q, want the address %s in it", out, want)
		}
		return err
	})
}

// record starts a recording of all that passes a box.
func (w *world) record(box string) *lab.Recording {
	w.t.Helper()
	r, err := w.box[box].Record()
	w.must(err)
	return r
}

// checkTape wants traffic in the recording, and in it neither the secret nor the ends' keys.
func (w *world) checkTape(r *lab.Recording) {
	w.t.Helper()
	tape := bytes.Join(r.Stop(), nil)
	if len(tape) < 2000 {
		w.t.Errorf("only %d bytes were recorded", len(tape))
	}
	for _, end := range []string{"a", "b"} {
		raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(w.key[end]))
		w.must(err)
		if bytes.Contains(tape, raw) || bytes.Contains(tape, []byte(w.key[end])) {
			w.t.Errorf("the recording shows the key of %s", end)
		}
	}
	for _, word := range []string{secret, "HTTP/1.1", "curl/"} {
		if bytes.Contains(tape, []byte(word)) {
			w.t.Errorf("the recording shows %q", word)
		}
	}
}

// checkRelayed wants the relays' counters to have seen the transfers.
func (w *world) checkRelayed(relays []string) {
	w.t.Helper()
	for _, r := range relays {
		if n := number(w.status(r)["relayed_bytes"]); n < 10e6 {
			w.t.Errorf("%s says that it relayed %.0f bytes", r, n)
		}
	}
}

// checkHops wants the trace to name the relays in their order.
func (w *world) checkHops(from, to string, relays []string) {
	w.t.Helper()
	out, err := w.box[from].Skywire(w.t.Context(), "node", "trace", w.key[to], "--json")
	w.must(err)
	at := 0
	for _, r := range append(relays, to) {
		i := strings.Index(out[at:], w.key[r])
		if i < 0 {
			w.t.Fatalf("the trace does not name %s in its place: %s", r, out)
		}
		at += i
	}
}

// TestE2ERoam changes the address of a node under its running traffic.
func TestE2ERoam(t *testing.T) {
	w := newWorld(t, "roam")
	w.chain("a", "r1", "b")
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	w.must(w.box["a"].IP("addr del 10.1.0.1/24 dev next"), w.box["a"].IP("addr add 10.1.0.77/24 dev next"))
	start := time.Now()
	w.pings("a", addr)
	t.Logf("after a change of address: %v until the next answer", time.Since(start).Round(time.Millisecond))
	w.must(w.box["r1"].IP("addr del 10.1.1.1/24 dev next"), w.box["r1"].IP("addr add 10.1.1.99/24 dev next"))
	w.pings("b", w.address("a"))
}
