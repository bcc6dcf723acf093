package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skywire/signal"
)

// garbageSeeds are lines of operators and apps that change nothing, to be damaged.
var garbageSeeds = []string{
	`{"jsonrpc":"2.0","id":1,"method":"viscript.ping","params":{"id":"good"},"timeout_ms":50}`,
	`{"jsonrpc":"2.0","id":"x","method":"viscript.logs","params":{"id":"good","follow":true,"cursor":1,"lines":3,"since":"2026-01-02T03:04:05Z"}}`,
	`{"jsonrpc":"2.0","id":3,"method":"viscript.ps","params":{"all":true}}`,
	`{"jsonrpc":"2.0","id":4,"method":"viscript.attach","params":{"id":"good"}}`,
	`{"jsonrpc":"2.0","id":5,"method":"viscript.input","params":{"id":"good","data":"eA=="}}`,
	`{"jsonrpc":"2.0","id":6,"method":"viscript.resize","params":{"id":"good","columns":65535,"rows":0}}`,
	`{"jsonrpc":"2.0","method":"$cancel","params":{"id":"x"}}`,
	`{"jsonrpc":"2.0","id":7,"method":"hello","params":{"proto":[1],"id":1,"token":"00112233445566778899aabbccddeeff"}}`,
	`{"jsonrpc":"2.0","method":"status","params":{"text":"\u0000\u001b[2J"}}`,
	`{"jsonrpc":"2.0","id":8,"result":{"pid":1}}`,
	`{"jsonrpc":"2.0","id":9,"error":{"code":-1,"name":"n","message":"m"}}`,
	`{"jsonrpc":"2.0","id":10,"method":"viscript.describe"}`,
	"GET / HTTP/1.1", "[]", "", "\xff\xfe",
}

// garbage is a few lines, some of them damaged.
func garbage(r *rand.Rand) []byte {
	var b []byte
	for range 1 + r.IntN(8) {
		line := []byte(garbageSeeds[r.IntN(len(garbageSeeds))])
		for range r.IntN(4) {
			if len(line) == 0 {
				break
			}
			i := r.IntN(len(line))
			switch r.IntN(4) {
			case 0:
				line[i] = byte(r.Uint32())
			case 1:
				line = line[:i]
			case 2:
				line = append(line[:i:i], line[i/2:]...)
			case 3:
				line = append(append(line[:i:i], `{"[1e999,null`...), line[i:]...)
			}
		}
		b = append(append(b, line...), '\n')
	}
	return b
}

// TestGarbageBesideOthers is T-S8: while twenty clients send damaged lines on both sockets and an app never answers, a
// thousand pings at once are answered; when they have gone viscript has all its descriptors back.
func TestGarbageBesideOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, autostart: true}
  silent: {path: /bin/sh, autostart: true, default_args: [-c, 'printf "{\"id\":1,\"method\":\"hello\",\"params\":{\"proto\":[1]}}\n{\"method\":\"ready\"}\n" >&3; exec sleep 1000']}
`)
	d := w.daemon()
	t.Cleanup(func() {
		d.Process.Kill()
		d.Wait()
	})
	control := ControlSocket(w.config.RunDir)
	eventually(t, func() error {
		var list []Item
		err := asked(t.Context(), w.config.RunDir, "viscript.ps", nil, &list)
		for _, it := range list {
			if it.State != Ready {
				err = fmt.Errorf("%+v", it)
			}
		}
		return err
	})
	fds := func() (names []string) {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.Process.Pid))
		for _, f := range list {
			if name, err := os.Readlink(f); err == nil && filepath.Ext(name) != journalSuffix { // opened when there is a line
				names = append(names, name)
			}
		}
		return names
	}
	before := fds()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	// Before the others: whoever comes while MaxConns are there is sent away.
	ask, pings := dialControl(t, control), w.pingers()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range 20 {
		path := []string{control, filepath.Join(w.config.RunDir, "signal.sock")}[i%2]
		wg.Go(func() { sendGarbage(ctx, path, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	silent := make(chan error, 1)
	wg.Go(func() {
		silent <- ask.Call(ctx, "viscript.ping", params{ID: "silent"}, nil)
	})
	w.thousandPings(pings)
	select {
	case err := <-silent:
		if !errors.Is(err, signal.ErrTimeout) {
			t.Errorf("one that never answers: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the ping of one that never answers does not end")
	}
	cancel()
	wg.Wait()
	ask.Close()
	eventually(t, func() error {
		if now := fds(); len(now) > len(before) {
			return fmt.Errorf("%d descriptors %q, %d before: %q", len(now), now, len(before), before)
		}
		return nil
	})
	eventually(t, func() error { return asked(t.Context(), w.config.RunDir, "viscript.status", nil, nil) })
}

func sendGarbage(ctx context.Context, path string, r *rand.Rand) {
	for ctx.Err() == nil {
		c, err := net.Dial("unix", path)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		go io.Copy(io.Discard, c) // ends with the connection
		for range 1 + r.IntN(20) {
			if _, err := c.Write(garbage(r)); err != nil {
				break
			}
		}
		stop()
		c.Close()
		time.Sleep(5 * time.Millisecond) // the machine is not for this alone
	}
}

func dialControl(t *testing.T, path string) *signal.Conn {
	t.Helper()
	c, err := signal.Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pingers are the connections of thousandPings.
func (w *world) pingers() (all []*signal.Conn) {
	for range 20 {
		all = append(all, dialControl(w.t, ControlSocket(w.config.RunDir)))
	}
	return all
}

// thousandPings asks an app from twenty connections, all at once.
func (w *world) thousandPings(from []*signal.Conn) {
	w.t.Helper()
	var wg sync.WaitGroup
	for _, c := range from {
		for range 50 {
			wg.Go(func() {
				var p Pong
				err := error(signal.ErrTimeout)
				for try := 0; try < 5 && errors.Is(err, signal.ErrTimeout); try++ { // on a loaded machine
					err = c.Call(w.t.Context(), "viscript.ping", params{ID: "good"}, &p)
				}
				if err != nil || p.AnsweredBy != "signal" {
					w.t.Errorf("%+v, %v", p, err)
				}
			})
		}
	}
	wg.Wait()
	for _, c := range from {
		c.Close()
	}
}
